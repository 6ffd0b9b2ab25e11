"""The steps: each takes one record of schemas.records and gives the next."""
