//! This knows how a length of time is written.

use std::time::Duration;

use serde::Deserialize;

/// A length of time, above zero.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct LengthOfTime(pub(super) Duration);

impl TryFrom<String> for LengthOfTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a length of time above zero, such as \"5s\" or \"500ms\"");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(60 * 60),
            _ => return Err(wrong()),
        };
        if number == 0 { Err(wrong()) } else { Ok(Self(unit * number)) }
    }
}
