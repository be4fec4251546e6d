# on one host
ray start --head --port 6379

# on every other one
ray start --address HEAD:6379

# on one of them: the missing runs of the plan
python training/table.py run --ray auto
