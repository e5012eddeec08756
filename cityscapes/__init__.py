"""The Cityscapes data set without torch: labels, masks, official scores, submissions, and an embedded demo city."""
