//! Timestamps of segments for containers (RFC 7323, 3).
//!
//! They are milliseconds of the host's clock, from no offset: whatever process sends them, they never go
//! back, which a container relies on when a source speaks to it again (RFC 6191). smoltcp asks a plain
//! function for them, which knows no clock, so it gets [`not_yet`], and a frame gets its own as it leaves.

use vswitch_frame::Instant;

const TCP_BYTES: usize = 20;
const END: u8 = 0;
const NOTHING: u8 = 1;
const TIMESTAMPS: u8 = 8;

/// The timestamp of a segment until it leaves.
pub(crate) fn not_yet() -> u32 {
    0
}

/// Writes the time into a segment of TCP, if it has a timestamp.
pub(crate) fn stamp(segment: &mut [u8], now: Instant) {
    let millis = now.as_nanos() / 1_000_000;
    let [a, b, c, d, ..] = millis.to_le_bytes();
    if let Some(value) = place(segment).and_then(|at| segment.get_mut(at..at + 4)) {
        value.copy_from_slice(&[d, c, b, a]);
    }
}

/// The place of the value of the timestamp among the options.
fn place(segment: &[u8]) -> Option<usize> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let options = segment.get(..end)?;
    let mut at = TCP_BYTES;
    loop {
        match *options.get(at)? {
            END => return None,
            NOTHING => at += 1,
            TIMESTAMPS => return Some(at + 2),
            _ => at += usize::from(*options.get(at + 1)?).max(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_written_where_there_is_room_for_it() {
        let options = [2, 4, 5, 180, 1, 3, 3, 7, 8, 10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0];
        let mut segment = [&[0; 12][..], &[0xa0], &[0; 7], &options, b"payload"].concat();
        let before = segment.clone();
        stamp(&mut segment, Instant::from_nanos(0x0102_0304 * 1_000_000));
        assert_eq!(segment[30..34], [1, 2, 3, 4]);
        assert_eq!((&segment[..30], &segment[34..]), (&before[..30], &before[34..]));
        for without in [&segment[..20], &segment[..3], &[&[0; 12][..], &[0xf0; 30]].concat()] {
            let mut same = without.to_vec();
            stamp(&mut same, Instant::from_nanos(1_000_000));
            assert_eq!(same, without);
        }
    }
}
