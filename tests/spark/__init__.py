"""The lake read by Spark, in an environment of its own."""
