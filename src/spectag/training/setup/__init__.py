"""Set-up of a training: held-out clips, folds, label weights, optimizer, processes."""
