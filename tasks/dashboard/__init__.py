"""The dashboard of a model, drawn from the ledger, the lake, MLflow, the endpoint and Prefect."""
