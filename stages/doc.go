// Package stages holds the sources and sample stages that come with Sluice, one file each,
// known to the YAML by their names:
//
//	sources        image_folder  files, a class a sub-folder; or a list of path,label
//	               shapes        a labelled dataset rendered in memory
//
//	sample stages  decode        bytes to pixels: JPEG, PNG, GIF, BMP, TIFF, WebP
//	               resize        to a shorter side, or to a size
//	               center_crop   the middle
//	               ten_crop      ten pictures of one: corners, middle, mirrored
//	               random_crop   a square at a random place
//	               random_resized_crop
//	                             a part of a random size and shape, scaled to a square
//	               flip          mirrored, at random
//	               pca_jitter    colour shifted along the data's principal components
//
// The geometric stages only edit the sample's View: what is computed in the end are the pixels of
// the last window. A stage that reads or changes pixels calls Sample.Pixels.
//
// A stage's error says what was wrong with the picture; the engine adds the
// stage, the name and the place in the dataset.
package stages
