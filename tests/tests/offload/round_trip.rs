//! split(coalesce(x)) = x, for bursts of several flows with everything that may happen in them.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::Accepts;
use vswitch_tests::bursts::{Form, burst};
use vswitch_tests::fuzz;

/// Records of a burst: mostly ordinary frames, so that runs grow, with special ones between.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let special = prop_oneof![3 => Just(0u8), 1 => 1..19u8];
    let length = prop_oneof![4 => Just(255u8), 1 => any::<u8>()];
    let record = (any::<u8>(), special, length, any::<u8>());
    vec(record.prop_map(|(who, special, length, form)| [who, special, length, form]), 0..60)
        .prop_map(|records| records.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn splitting_what_was_coalesced_gives_it_back(records in records()) {
        fuzz::coalesce(&records);
    }

    #[test]
    fn what_the_receiver_does_not_take_is_left_alone(records in records()) {
        let sent = burst(&records);
        let arrived = fuzz::coalesced_and_split(&sent, Accepts { checksum: true, ..Accepts::NONE });
        let expected: Vec<Vec<u8>> = sent.iter().map(|sent| sent.bytes.clone()).collect();
        prop_assert_eq!(arrived, expected);
    }
}

/// The frames of an ordinary burst do merge: without this the properties would hold of a coalescer that
/// does nothing.
#[test]
fn ordinary_flows_become_one_frame_each() {
    use vswitch_frame::coalesce::Coalescer;
    use vswitch_frame::{Frame, Pool};
    let mut pool = Pool::new(64);
    for form in 0..3u8 {
        let records: Vec<u8> = (0..40u8).flat_map(|number| [number % 4, 0, 255, form]).collect();
        let sent = burst(&records);
        let mut frames: Vec<Frame> = sent.iter().map(|sent| sent.receive(&mut pool)).collect();
        Coalescer::new(1).coalesce(&mut frames, Accepts::ALL, &mut pool);
        let segments: Vec<usize> = frames.iter().map(|frame| frame.bytes().len()).collect();
        assert_eq!(frames.len(), 4, "{segments:?}");
        frames.into_iter().for_each(|frame| pool.free(frame));
    }
    assert_eq!(burst(&[0, 0, 255, 2])[0].form, Form::Partial);
}
