//! This knows what a CRL is about (`issuingDistributionPoint`; RFC 5280, sections 5.2.5 and 6.3.3 (b) to (d)).

use crate::der::{self, malformed};
use crate::point::{ALL_REASONS, read_reasons};
use crate::{DistributionPoint, Link, PointName, Trouble};

/// What a CRL is about.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The extension as it is, to be compared with a delta CRL's; none where there is none: the CRL is about all.
    der: Option<Box<[u8]>>,
    /// Where the CRL is to be had; none: at any point.
    names: Option<Vec<PointName>>,
    user_certificates: bool,
    ca_certificates: bool,
    attribute_certificates: bool,
    reasons: Option<u16>,
}

impl Scope {
    /// Reads `issuingDistributionPoint`.
    pub(super) fn read(der: &[u8], issuer_name: &[u8]) -> Result<Self, Trouble> {
        let mut fields = der::only(der, der::SEQUENCE, "a distribution point")?.inside();
        let names = fields
            .optional_element(der::context(0))?
            .map(|name| PointName::read_all(name, issuer_name))
            .transpose()?;
        let user_certificates = fields.flag(der::context_primitive(1))?;
        let ca_certificates = fields.flag(der::context_primitive(2))?;
        let reasons = fields.optional_element(der::context_primitive(3))?.map(read_reasons).transpose()?;
        let is_indirect = fields.flag(der::context_primitive(4))?;
        let attribute_certificates = fields.flag(der::context_primitive(5))?;
        fields.end()?;
        if is_indirect {
            return Err(Trouble::NotCovered("the CRL is an indirect one"));
        }
        if usize::from(user_certificates) + usize::from(ca_certificates) + usize::from(attribute_certificates)
            > 1
        {
            return Err(malformed(
                "a CRL that is only about one kind of certificates and only about another",
            ));
        }
        let der = Some(Box::from(der));
        Ok(Self { der, names, user_certificates, ca_certificates, attribute_certificates, reasons })
    }

    /// Whether a delta CRL's is the same (RFC 5280, section 6.3.3 (c) (2)).
    pub(super) fn is_that_of(&self, delta: &Self) -> bool {
        self.der == delta.der
    }

    /// Whether serial numbers in it are certificates' at all.
    pub(super) fn has_certificates(&self) -> bool {
        !self.attribute_certificates
    }

    /// For which reasons of revocation the CRL is complete as to this certificate, as bits of ReasonFlags, where it was had
    /// from this point of the certificate. Without a point, the certificate's points all count, and the one that RFC 5280
    /// (section 6.3.3, last paragraph) assumes in a certificate: named like the issuer.
    pub(super) fn reasons(&self, link: &Link, point: Option<&DistributionPoint>) -> Result<u16, Trouble> {
        if self.attribute_certificates {
            return Err(Trouble::NotCovered("the CRL is about attribute certificates"));
        }
        if self.user_certificates && link.is_ca {
            return Err(Trouble::NotCovered("the CRL is about certificates that are no CA's"));
        }
        if self.ca_certificates && !link.is_ca {
            return Err(Trouble::NotCovered("the CRL is about certificates of CAs"));
        }
        let reasons = match (point, &self.names) {
            (Some(point), _) => self.reasons_of(point)?,
            (None, None) => ALL_REASONS,
            (None, Some(names)) => {
                let points = link.distribution_points.iter();
                let of_points = points.filter_map(|point| self.reasons_of(point).ok());
                let assumed = names.contains(&PointName::Directory(link.issuer.name.clone()));
                of_points.chain(assumed.then_some(ALL_REASONS)).reduce(|all, more| all | more).ok_or(
                    Trouble::NotCovered(
                        "the CRL is of a distribution point that the certificate does not have",
                    ),
                )?
            }
        };
        Ok(reasons & self.reasons.unwrap_or(ALL_REASONS) & ALL_REASONS)
    }

    fn reasons_of(&self, point: &DistributionPoint) -> Result<u16, Trouble> {
        if point.is_indirect {
            return Err(Trouble::NotCovered("the distribution point is one of indirect CRLs"));
        }
        let matches = |names: &Vec<PointName>| point.names.iter().any(|name| names.contains(name));
        if !self.names.as_ref().is_none_or(matches) {
            return Err(Trouble::NotCovered("the CRL is of another distribution point"));
        }
        Ok(point.reasons.unwrap_or(ALL_REASONS))
    }

    /// How many bytes it takes on the heap.
    pub(super) fn size(&self) -> usize {
        let names = self.names.as_deref().unwrap_or_default();
        size_of_val(names)
            + names.iter().map(PointName::size).sum::<usize>()
            + self.der.as_ref().map_or(0, |der| der.len())
    }
}
