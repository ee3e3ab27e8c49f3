//! What a container cannot do to others, whatever it sends.

mod floods;
