//! A super-frame into the frames it stands for.
