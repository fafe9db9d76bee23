//! This knows the places where CRLs are to be had (RFC 5280, sections 4.2.1.13 and 4.2.1.15), and what they are called.

use crate::Trouble;
use crate::der::{self, Element, Reader, malformed};

/// The bits of ReasonFlags of all reasons for which a certificate may be revoked (RFC 5280, section 6.3.2 (a)): all but the
/// first one, which is not used.
pub(crate) const ALL_REASONS: u16 = 0b1_1111_1110;

/// A place where a CRL is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistributionPoint {
    /// Its names, URLs among them, in its order. What is relative to the issuer's name is put together with it. Empty where
    /// it has none of the two kinds.
    pub names: Vec<PointName>,
    /// For which reasons of revocation it is complete, as bits of ReasonFlags (`keyCompromise`, bit 1, is `1 << 1`); none:
    /// for all.
    pub reasons: Option<u16>,
    /// Whether its CRL is another issuer's (`cRLIssuer`): an indirect CRL.
    pub is_indirect: bool,
}

/// A name of a distribution point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointName {
    /// A URL.
    Uri(String),
    /// An entry of a directory, in DER.
    Directory(Vec<u8>),
}

impl DistributionPoint {
    /// Reads `CRLDistributionPoints`, of which `FreshestCRL` is another name, of a certificate or CRL of this issuer.
    pub(crate) fn read_all(der: &[u8], issuer_name: &[u8]) -> Result<Vec<Self>, Trouble> {
        let mut points = der::only(der, der::SEQUENCE, "a distribution point")?.inside();
        let mut read = Vec::new();
        while points.peek().is_some() {
            read.push(Self::read(points.element(der::SEQUENCE, "a distribution point")?, issuer_name)?);
        }
        Ok(read)
    }

    fn read(point: Element<'_>, issuer_name: &[u8]) -> Result<Self, Trouble> {
        let mut fields = point.inside();
        let names = match fields.optional_element(der::context(0))? {
            Some(name) => PointName::read_all(name, issuer_name)?,
            None => Vec::new(),
        };
        let reasons = fields.optional_element(der::context_primitive(1))?.map(read_reasons).transpose()?;
        let is_indirect = fields.optional_element(der::context(2))?.is_some();
        fields.end()?;
        Ok(Self { names, reasons, is_indirect })
    }

    /// The URLs among its names, in its order.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            PointName::Uri(uri) => Some(uri.as_str()),
            PointName::Directory(_) => None,
        })
    }

    /// How many bytes its parts take on the heap.
    pub(crate) fn size(&self) -> usize {
        self.names.capacity() * size_of::<PointName>() + self.names.iter().map(PointName::size).sum::<usize>()
    }
}

impl PointName {
    /// Reads a `DistributionPointName`. Kinds of names that are none of a distribution point are left out.
    pub(crate) fn read_all(name: Element<'_>, issuer_name: &[u8]) -> Result<Vec<Self>, Trouble> {
        let mut choice = name.inside();
        let full = choice.optional_element(der::context(0))?;
        let relative = if full.is_none() {
            Some(choice.element(der::context(1), "a distribution point")?)
        } else {
            None
        };
        choice.end()?;
        if let Some(relative) = relative {
            return Ok(vec![Self::Directory(below(issuer_name, relative.content)?)]);
        }
        let mut names = full.map_or(Reader::new(&[]), |full| full.inside());
        let mut read = Vec::new();
        while let Some(kind) = names.peek() {
            let name = names.any()?;
            if kind == der::context_primitive(6) {
                read.extend(str::from_utf8(name.content).map(|uri| Self::Uri(uri.to_owned())));
            } else if kind == der::context(4) {
                read.push(Self::Directory(
                    der::only(name.content, der::SEQUENCE, "a distribution point")?.whole.to_vec(),
                ));
            }
        }
        Ok(read)
    }

    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Uri(uri) => uri.capacity(),
            Self::Directory(name) => name.capacity(),
        }
    }
}

/// The name of an entry right below an issuer's (`nameRelativeToCRLIssuer`): its relative distinguished name after the
/// issuer's.
fn below(issuer_name: &[u8], relative: &[u8]) -> Result<Vec<u8>, Trouble> {
    let above = der::only(issuer_name, der::SEQUENCE, "a distribution point")?.content;
    let last = der::write(der::SET, &[relative]);
    Ok(der::write(der::SEQUENCE, &[above, &last]))
}

/// Reads `ReasonFlags` (RFC 5280, section 4.2.1.13). Bits after the known ones are left out.
pub(crate) fn read_reasons(element: Element<'_>) -> Result<u16, Trouble> {
    let [0..=7, octets @ ..] = element.content else { return Err(malformed("a BIT STRING that is none")) };
    let bit = |number: usize| octets.get(number / 8).is_some_and(|octet| octet & (0x80 >> (number % 8)) != 0);
    Ok((0..9).filter(|number| bit(*number)).fold(0, |flags, number| flags | 1 << number))
}
