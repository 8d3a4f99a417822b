"""What restores a snapshot in a drill, apart from Jobs, which are the cluster's."""
