"""The results of the paper: Table 1 as a plan of runs, and the tables made from run folders."""
