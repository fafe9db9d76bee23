use std::path::Path;

#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[test]
fn what_must_hold_does_for_what_fronts_wrote_and_its_mutations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/front_header");
    replay::replay(&folder, 4000, crate::any_value::front_header);
}
