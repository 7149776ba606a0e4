"""One engine a file: what a sweep hands its runs to, processes of this machine or a cluster."""
