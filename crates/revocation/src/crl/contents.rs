//! This knows what is in the signed part of a CRL (RFC 5280, sections 5.1.2 to 5.3).

use std::time::{Duration, SystemTime};

use x509_parser::asn1_rs::Oid;

use super::scope::Scope;
use super::serials::{Entry, Serials};
use crate::der::{self, Element, Reader, malformed};
use crate::link::magnitude;
use crate::{DistributionPoint, Trouble};

/// More extensions than this have no CRL and no entry.
const MAX_EXTENSIONS: usize = 16;

const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
const REASON_CODE: &[u8] = &[0x55, 0x1d, 21];
const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 24];
const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 27];
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 29];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];
const FRESHEST_CRL: &[u8] = &[0x55, 0x1d, 46];

/// `removeFromCRL` of CRLReason.
const REMOVE_FROM_CRL: u8 = 8;

/// The fields before the entries, which tell who has to have signed.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// The algorithm of the signature, as the signed part has it.
    pub(super) algorithm: &'a [u8],
    /// The issuer's name.
    pub(super) issuer: &'a [u8],
    is_v1: bool,
    after: Reader<'a>,
}

/// All that is kept of a CRL.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) this_update: SystemTime,
    pub(super) next_update: Option<SystemTime>,
    pub(super) serials: Serials,
    /// CRLNumber, without the zeros before it.
    pub(super) number: Option<Box<[u8]>>,
    /// BaseCRLNumber: it is a delta CRL.
    pub(super) base: Option<Box<[u8]>>,
    pub(super) scope: Scope,
    pub(super) freshest: Vec<DistributionPoint>,
}

impl<'a> Head<'a> {
    pub(super) fn read(signed: Element<'a>) -> Result<Self, Trouble> {
        let mut fields = signed.inside();
        let is_v1 = match fields.optional_element(der::INTEGER)? {
            None => true,
            Some(Element { content: [1], .. }) => false,
            Some(_) => return Err(malformed("a version other than 1 and 2")),
        };
        let algorithm = fields.element(der::SEQUENCE, "a CRL")?.whole;
        let issuer = fields.element(der::SEQUENCE, "a CRL")?.whole;
        Ok(Self { algorithm, issuer, is_v1, after: fields })
    }

    /// Reads the rest, entry by entry.
    pub(super) fn contents(&self) -> Result<Contents, Trouble> {
        let mut fields = self.after;
        let this_update = time(der::seconds(fields.any()?)?)?;
        let is_time = matches!(fields.peek(), Some(der::UTC_TIME | der::GENERALIZED_TIME));
        let next_update = if is_time { Some(time(der::seconds(fields.any()?)?)?) } else { None };
        if next_update.is_some_and(|next| next < this_update) {
            return Err(malformed("its time ends before it begins"));
        }
        let entries = fields.optional_element(der::SEQUENCE)?.map_or(Reader::new(&[]), |list| list.inside());
        let serials = Serials::collect(|| Entries { left: entries, is_v1: self.is_v1 })?;
        let extensions = fields.optional_element(der::context(0))?;
        fields.end()?;
        let mut contents = Contents {
            this_update,
            next_update,
            serials,
            number: None,
            base: None,
            scope: Scope::default(),
            freshest: Vec::new(),
        };
        if let Some(extensions) = extensions {
            if self.is_v1 {
                return Err(malformed("a version 1 with extensions"));
            }
            contents.read_extensions(
                der::only(extensions.content, der::SEQUENCE, "a CRL")?.inside(),
                self.issuer,
            )?;
        }
        Ok(contents)
    }
}

impl Contents {
    fn read_extensions(&mut self, extensions: Reader<'_>, issuer: &[u8]) -> Result<(), Trouble> {
        for_each_extension(extensions, |extension| {
            match extension.oid {
                CRL_NUMBER => self.number = Some(number(extension.value)?),
                DELTA_CRL_INDICATOR => self.base = Some(number(extension.value)?),
                ISSUING_DISTRIBUTION_POINT => self.scope = Scope::read(extension.value, issuer)?,
                FRESHEST_CRL => self.freshest = DistributionPoint::read_all(extension.value, issuer)?,
                // It helps to choose among an issuer's keys; which one it was, the signature has told.
                AUTHORITY_KEY_IDENTIFIER => {}
                _ => extension.may_be_passed_over()?,
            }
            Ok(())
        })
    }

    /// How many bytes its parts take on the heap.
    pub(super) fn size(&self) -> usize {
        let numbers = [&self.number, &self.base].into_iter().flatten();
        self.serials.size()
            + numbers.map(|number| number.len()).sum::<usize>()
            + self.scope.size()
            + self.freshest.capacity() * size_of::<DistributionPoint>()
            + self.freshest.iter().map(DistributionPoint::size).sum::<usize>()
    }
}

/// The entries, one at a time.
struct Entries<'a> {
    left: Reader<'a>,
    is_v1: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left.peek()?;
        Some(self.left.element(der::SEQUENCE, "a CRL").and_then(|entry| self.read(entry)))
    }
}

impl<'a> Entries<'a> {
    fn read(&self, entry: Element<'a>) -> Result<Entry<'a>, Trouble> {
        let mut fields = entry.inside();
        // A negative one is the same as the positive one of the same octets here, in certificates as in CRLs: one revoked
        // certificate more, and none less.
        let serial = fields.element(der::INTEGER, "a CRL")?.content;
        if serial.is_empty() {
            return Err(malformed("a serial number without octets"));
        }
        let since = der::seconds(fields.any()?)?;
        let extensions = fields.optional_element(der::SEQUENCE)?;
        fields.end()?;
        let mut removed = false;
        if let Some(extensions) = extensions {
            if self.is_v1 {
                return Err(malformed("a version 1 with extensions of an entry"));
            }
            for_each_extension(extensions.inside(), |extension| {
                match extension.oid {
                    REASON_CODE => match der::only(extension.value, der::ENUMERATED, "a CRL")?.content {
                        [reason] => removed = *reason == REMOVE_FROM_CRL,
                        _ => return Err(malformed("a reason that is none")),
                    },
                    // Of which certificate the entry is does not depend on it, nor whether it is revoked by now.
                    INVALIDITY_DATE => {}
                    CERTIFICATE_ISSUER => {
                        return Err(Trouble::NotCovered("the CRL has an entry of an indirect one"));
                    }
                    _ => extension.may_be_passed_over()?,
                }
                Ok(())
            })?;
        }
        Ok(Entry { serial: magnitude(serial), since, removed })
    }
}

struct Extension<'a> {
    oid: &'a [u8],
    is_critical: bool,
    value: &'a [u8],
}

impl Extension<'_> {
    /// Whether it may be left out, as it is not known: not where it is critical (RFC 5280, sections 5.2 and 5.3), for then
    /// the CRL or what is in it means something else.
    fn may_be_passed_over(&self) -> Result<(), Trouble> {
        if !self.is_critical {
            return Ok(());
        }
        let oid = Oid::new(self.oid.into());
        Err(malformed(format!("the critical extension {oid} is not known")))
    }
}

/// Reads extensions, of which none may stand twice.
fn for_each_extension<'a>(
    mut extensions: Reader<'a>,
    mut read: impl FnMut(&Extension<'a>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut seen: [&[u8]; MAX_EXTENSIONS] = [&[]; MAX_EXTENSIONS];
    let mut count = 0;
    while extensions.peek().is_some() {
        let mut fields = extensions.element(der::SEQUENCE, "a CRL")?.inside();
        let oid = fields.element(der::OBJECT_IDENTIFIER, "a CRL")?.content;
        let is_critical = fields.flag(der::BOOLEAN)?;
        let value = fields.element(der::OCTET_STRING, "a CRL")?.content;
        fields.end()?;
        if count == MAX_EXTENSIONS || seen[..count].contains(&oid) {
            return Err(malformed("an extension that stands twice, or too many"));
        }
        seen[count] = oid;
        count += 1;
        read(&Extension { oid, is_critical, value })?;
    }
    Ok(())
}

/// A CRLNumber or BaseCRLNumber: not negative, and of 20 octets at most (RFC 5280, section 5.2.3).
fn number(value: &[u8]) -> Result<Box<[u8]>, Trouble> {
    match der::only(value, der::INTEGER, "a CRL")?.content {
        [] => Err(malformed("a CRL number that is none")),
        [first, ..] if *first >= 0x80 => Err(malformed("a CRL number that is negative")),
        number if magnitude(number).len() > 20 => Err(malformed("a CRL number of more than 20 octets")),
        number => Ok(magnitude(number).into()),
    }
}

/// The point in time of so many seconds since 1970.
fn time(seconds: i64) -> Result<SystemTime, Trouble> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.ok_or_else(|| malformed("a time beyond the clock's"))
}
