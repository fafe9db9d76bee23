//! This knows how to walk through DER without copying it.

use x509_parser::asn1_rs::{FromDer, Header};
use x509_parser::time::ASN1Time;

use crate::Trouble;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The identifier octet of a context-specific tag that is not constructed.
pub(crate) const fn primitive(tag: u8) -> u8 {
    0x80 | tag
}

/// The identifier octet of a context-specific tag that is constructed.
pub(crate) const fn constructed(tag: u8) -> u8 {
    0xa0 | tag
}

/// Elements that follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Der<'a>(&'a [u8]);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    /// All of it.
    pub(crate) raw: &'a [u8],
    /// Its content octets.
    pub(crate) content: &'a [u8],
}

impl<'a> Der<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The only element of these bytes, which has this identifier octet, and nothing after it.
    pub(crate) fn only(bytes: &'a [u8], identifier: u8) -> Result<Element<'a>, Trouble> {
        let mut all = Self(bytes);
        let element = all.take(identifier)?;
        all.end()?;
        Ok(element)
    }

    /// The identifier octet of the next element; none at the end.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, of whatever kind.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, Trouble> {
        let (rest, header) =
            Header::from_der(self.0).map_err(|error| malformed(format!("no DER: {error}")))?;
        // The tags of these formats fit into one octet, so that one octet tells what an element is.
        let length = header.length().definite().map_err(|error| malformed(error.to_string()))?;
        if header.tag().0 >= 0x1f || length > rest.len() {
            return Err(malformed("an element is longer than what it is in, or of no known kind"));
        }
        let (content, after) = rest.split_at(length);
        let raw = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Ok(Element { raw, content })
    }

    /// The next element, which has this identifier octet.
    pub(crate) fn take(&mut self, identifier: u8) -> Result<Element<'a>, Trouble> {
        match self.peek() {
            Some(found) if found == identifier => self.any(),
            found => Err(malformed(format!("{found:02x?} where {identifier:02x} has to be"))),
        }
    }

    /// The next element if it has this identifier octet.
    pub(crate) fn optional(&mut self, identifier: u8) -> Result<Option<Element<'a>>, Trouble> {
        (self.peek() == Some(identifier)).then(|| self.any()).transpose()
    }

    /// The next element, a time (RFC 5280, section 5.1.2.4): seconds since 1970.
    pub(crate) fn time(&mut self) -> Result<i64, Trouble> {
        let element = self.any()?;
        match ASN1Time::from_der(element.raw) {
            Ok(([], time)) => Ok(time.timestamp()),
            _ => Err(malformed("a time cannot be read")),
        }
    }

    /// A BOOLEAN that is false where it is not there. What is not false is true.
    pub(crate) fn flag(&mut self, identifier: u8) -> Result<bool, Trouble> {
        match self.optional(identifier)? {
            None => Ok(false),
            Some(Element { content: [value], .. }) => Ok(*value != 0),
            Some(_) => Err(malformed("a BOOLEAN that is none")),
        }
    }

    pub(crate) fn end(&self) -> Result<(), Trouble> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("there is something after the end")) }
    }
}

impl<'a> Element<'a> {
    /// The elements in it.
    pub(crate) fn inside(&self) -> Der<'a> {
        Der(self.content)
    }
}

pub(crate) fn malformed(what: impl Into<String>) -> Trouble {
    Trouble::Malformed(what.into())
}
