"""Helpers shared by the AWS adapters: boto3 clients, error translation, job names, folders in S3. Not a port."""
