"""From a configuration to a job: the one place where its parts are put together."""
