"""Pure engines the node is built from: bitmaps, histograms, overlap tracking."""
