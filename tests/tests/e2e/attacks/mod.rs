//! Whoever writes frames, and means harm.

mod fire;
