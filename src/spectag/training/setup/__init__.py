"""What is settled before training: folds, hold-outs, weights of labels, devices."""
