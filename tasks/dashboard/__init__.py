"""The page about one model, drawn from the ledger, the lake, MLflow, the endpoint and Prefect."""
