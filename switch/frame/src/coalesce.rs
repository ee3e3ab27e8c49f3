//! Many frames of one flow into one super-frame.
