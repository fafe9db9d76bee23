//! This knows DER (X.690), as far as OCSP and CRLs have it: reading, and no more leniently than the standard; and writing.
//!
//! Nothing is copied, and no length is believed before so many bytes are there. What `asn1-rs` reads may have its lengths
//! written in more bytes than they need, so that one answer would have many forms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::Trouble;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// The tag of a context-specific element that has others within (`EXPLICIT`, or `IMPLICIT SEQUENCE`).
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The tag of a context-specific element that has none within (`IMPLICIT NULL`).
pub(crate) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// What is wrong with the bytes, and of what.
pub(crate) fn malformed(what: impl Into<String>) -> Trouble {
    Trouble::Malformed(what.into())
}

/// An element as a whole, and what is within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// With tag and length.
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The elements in it.
    pub(crate) fn inside(&self) -> Reader<'a> {
        Reader::new(self.content)
    }
}

/// Elements, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// Reads all of these bytes.
///
/// # Errors
/// Those of `read`, and bytes that it left.
pub(crate) fn read_all<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// The only element of these bytes, which must have this tag.
pub(crate) fn only<'a>(bytes: &'a [u8], tag: u8, what: &'static str) -> Result<Element<'a>, Trouble> {
    read_all(bytes, |reader| reader.element(tag, what))
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The tag of the next element; none at the end.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// That there is nothing more.
    pub(crate) fn end(&self) -> Result<(), Trouble> {
        if self.is_at_end() { Ok(()) } else { Err(malformed("there is more than there should be")) }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, Trouble> {
        let start = self.rest;
        let tag = self.byte()?;
        if tag & 0x1f == 0x1f {
            return Err(malformed("a tag of more than one byte"));
        }
        let length = self.length()?;
        let (content, rest) = self.rest.split_at_checked(length).ok_or_else(|| malformed("it breaks off"))?;
        self.rest = rest;
        Ok(Element { tag, content, whole: &start[..start.len() - rest.len()] })
    }

    /// The next element, which must have this tag.
    pub(crate) fn element(&mut self, tag: u8, what: &'static str) -> Result<Element<'a>, Trouble> {
        if self.rest.first().is_some_and(|first| *first != tag) {
            return Err(malformed(what));
        }
        self.any()
    }

    /// What is in the next element, which must have this tag.
    pub(crate) fn content(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], Trouble> {
        self.element(tag, what).map(|element| element.content)
    }

    /// What is in the next element, if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Trouble> {
        Ok(self.optional_element(tag)?.map(|element| element.content))
    }

    /// The next element, if it has this tag.
    pub(crate) fn optional_element(&mut self, tag: u8) -> Result<Option<Element<'a>>, Trouble> {
        (self.peek() == Some(tag)).then(|| self.any()).transpose()
    }

    /// A BOOLEAN that is false where it is not there. What is not false is true.
    pub(crate) fn flag(&mut self, tag: u8) -> Result<bool, Trouble> {
        match self.optional(tag)? {
            None => Ok(false),
            Some([value]) => Ok(*value != 0),
            Some(_) => Err(malformed("a BOOLEAN that is none")),
        }
    }

    /// The rest, one element of this tag after the other.
    pub(crate) fn each<T>(
        &mut self,
        tag: u8,
        what: &'static str,
        mut read: impl FnMut(Element<'a>) -> Result<T, Trouble>,
    ) -> Result<Vec<T>, Trouble> {
        let mut values = Vec::new();
        while !self.is_at_end() {
            values.push(read(self.element(tag, what)?)?);
        }
        Ok(values)
    }

    fn byte(&mut self) -> Result<u8, Trouble> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| malformed("it breaks off"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// A length in as few bytes as it takes (X.690, section 10.1); never an indefinite one.
    fn length(&mut self) -> Result<usize, Trouble> {
        let bytes = match self.byte()? {
            short @ 0..=0x7f => return Ok(usize::from(short)),
            long @ 0x81..=0x84 => long & 0x7f,
            _ => return Err(malformed("a length that DER does not have")),
        };
        let mut length = 0;
        for _ in 0..bytes {
            length = length << 8 | usize::from(self.byte()?);
        }
        let shortest = if length < 0x80 { 0 } else { (usize::BITS - length.leading_zeros()).div_ceil(8) };
        if shortest == u32::from(bytes) { Ok(length) } else { Err(malformed("a length in too many bytes")) }
    }
}

/// A GeneralizedTime as RFC 5280, section 4.1.2.5.2 has it: `YYYYMMDDHHMMSSZ`.
pub(crate) fn time(element: Element<'_>) -> Result<SystemTime, Trouble> {
    let seconds = if element.tag == GENERALIZED_TIME { seconds(element)? } else { -1 };
    let seconds = u64::try_from(seconds).map_err(|_| malformed("a time"))?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(|| malformed("a time"))
}

/// The same, or a UTCTime (RFC 5280, section 4.1.2.5.1): `YYMMDDHHMMSSZ`. In seconds since 1970.
pub(crate) fn seconds(element: Element<'_>) -> Result<i64, Trouble> {
    let wrong = || malformed("a time");
    let (last, digits) = element.content.split_last().ok_or_else(wrong)?;
    let count = match element.tag {
        UTC_TIME => 12,
        GENERALIZED_TIME => 14,
        _ => return Err(wrong()),
    };
    if *last != b'Z' || digits.len() != count || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    ASN1Time::from_der(element.whole).map(|(_, time)| time.timestamp()).map_err(|_| wrong())
}

/// Writes an element of this tag and these parts.
pub(crate) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[length.leading_zeros() as usize / 8..];
        der.push(0x80 | bytes.len() as u8);
        der.extend(bytes);
    }
    for part in parts {
        der.extend(*part);
    }
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(u8, Vec<u8>), Trouble> {
        read_all(bytes, |reader| reader.any().map(|element| (element.tag, element.content.to_vec())))
    }

    #[test]
    fn what_is_written_is_read_again_at_each_length_of_a_length() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let content = vec![7; length];
            assert_eq!(read(&write(SEQUENCE, &[&content])).unwrap(), (SEQUENCE, content), "{length}");
        }
    }

    #[test]
    fn a_length_that_der_does_not_have_is_refused() {
        for bytes in [
            &[0x30, 0x80, 0x00, 0x00][..],
            &[0x30, 0x81, 0x01, 0x00],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0xff, 0x00],
            &[0x3f, 0x01, 0x00],
            &[0x30, 0x01],
            &[0x30, 0x00, 0x00],
            &[0x30],
            &[],
        ] {
            read(bytes).unwrap_err();
        }
    }

    #[test]
    fn a_time_has_seconds_and_is_in_utc() {
        let read = |text: &str| {
            let der = write(GENERALIZED_TIME, &[text.as_bytes()]);
            read_all(&der, |reader| time(reader.any()?))
        };
        assert_eq!(read("20260102030405Z").unwrap(), UNIX_EPOCH + Duration::from_secs(1_767_323_045));
        for wrong in [
            "202601020304Z",
            "20260102030405",
            "20260102030405.5Z",
            "20260102030405+0100",
            "20261302030405Z",
            "19691231235959Z",
            "2026010203040 Z",
            "",
        ] {
            read(wrong).unwrap_err();
        }
    }
}
