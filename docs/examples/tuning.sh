tf-mmloss tune --dataset my_photos --method ldam --over max_margin=0.3,0.5 --search grid --out runs/margins
