"""From labelled images to weights: augmentation, targets, losses, the loop, several processes."""
