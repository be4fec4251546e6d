# my_photos/CLASS/*.jpg: what was found, and what would be trained
tf-mmloss fit --dataset my_photos --show
tf-mmloss fit --dataset my_photos --method balanced-softmax --out runs/mine
tf-mmloss evaluate runs/mine
tf-mmloss predict runs/mine new/ --out predictions.csv
# makes runs/mine/index.html, the page of the run, again
tf-mmloss page runs/mine
