"""What adapters for AWS share: clients, errors turned into the ports', folders in S3. No port of its own."""
