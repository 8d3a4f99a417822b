"""What every controller stands on: queue and supervision, the writing of status, threads, clock, probes."""
