"""Land a source in the lake."""

from prefect import flow

from flows.exclusive import one_at_a_time
from flows.parameters import EnvironmentName, ModelName
from tasks.ingest import land
from tasks.records import Landed


@flow(name="ingest", persist_result=True, result_serializer="json", flow_run_name="{model} from {source}")
def ingest(model: ModelName, source: str, query: str = "", environment: EnvironmentName = "local") -> Landed:
    """Append the rows of a source to the model's data set as one snapshot; set wrong rows aside with reasons.

    Args:
        model: The model whose data this is: a folder below models/.
        source: A .csv or .parquet file that the worker can read, or an SQLAlchemy URL such as sqlite:////data/crm.db.
        query: The SELECT to run when the source is a database. Empty otherwise.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    with one_at_a_time(f"ingest-{model}"):
        return land(model, source, query, environment)
