tf-mmloss compare --dataset my_photos --methods erm,balanced-softmax --seeds 3 --out runs/which
