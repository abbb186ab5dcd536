//! Texts that let someone in: join tokens and credentials, and how they are drawn, digested and compared.
//!
//! Promise: nothing here shows a secret through `Debug` or `Display`; showing one takes a call named `expose`.
//! Every text carries a checksum, so that a mangled paste is told from a wrong secret.
//! Not here: which digests are valid (the records in `access`), nor files that hold secrets (`private_file`).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

/// A SHA-256 digest.
pub type Sha256 = [u8; 32];

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

/// Whether two digests are equal, in a time that does not depend on where they differ.
pub fn same_digest(a: &Sha256, b: &Sha256) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    std::hint::black_box(difference) == 0
}

/// Lower-case hexadecimal digits, two for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// `N` bytes from the operating system's generator, fit for keys.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A text that must not be printed, logged or compared by accident.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself. Each caller is a place where a secret leaves: a file, a socket, the screen of its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Why a text is not a join token or a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error("not a {kind}: it does not begin with `{prefix}`")]
    Prefix { kind: &'static str, prefix: &'static str },
    #[error("this {kind} is damaged: {reason}; copy the whole text again")]
    Damaged { kind: &'static str, reason: &'static str },
    #[error("this {kind} has format version {version}, this program reads version {VERSION}; upgrade it")]
    Version { kind: &'static str, version: u8 },
}

/// The format version of both texts.
const VERSION: u8 = 1;
/// No honest text is longer: a token is 110 characters. Bounds the work on hostile input.
const TEXT_LENGTH_MAX: usize = 512;

/// What a kind of text is called and how it begins.
struct Kind {
    name: &'static str,
    prefix: &'static str,
}

const TOKEN: Kind = Kind { name: "join token", prefix: "tocsin_" };
const CREDENTIAL: Kind = Kind { name: "credential", prefix: "tocsinc_" };

impl Kind {
    /// Prefix, then base64url of version, body and CRC-32 of both.
    fn print(&self, body: &[u8]) -> Secret {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        Secret::new(format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn parse<const N: usize>(&self, text: &str) -> Result<[u8; N], InvalidSecret> {
        let kind = self.name;
        let damaged = |reason| InvalidSecret::Damaged { kind, reason };
        if text.len() > TEXT_LENGTH_MAX {
            return Err(damaged("it is too long"));
        }
        // Terminals and chat programs wrap long lines.
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let encoded =
            text.strip_prefix(self.prefix).ok_or(InvalidSecret::Prefix { kind, prefix: self.prefix })?;
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| damaged("it is cut short or holds a character that no such text has"))?;
        let (content, checksum) = bytes
            .split_last_chunk::<4>()
            .filter(|(content, _)| !content.is_empty())
            .ok_or(damaged("it is cut short"))?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return Err(damaged("its checksum does not match"));
        }
        match content[0] {
            VERSION => content[1..].try_into().map_err(|_| damaged("it has the wrong length")),
            version => Err(InvalidSecret::Version { kind, version }),
        }
    }
}

/// What a join token says to the host that enrols with it. The collector keeps only `id` and the secret's digest.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret {
    id: [u8; 8],
    secret: [u8; 32],
    ca_pin: Sha256,
}

impl JoinSecret {
    /// Draws a new token for collectors whose chain ends in the certificate with this SHA-256 (DER).
    pub fn generate(ca_pin: Sha256) -> Result<Self, NoRandomness> {
        Ok(Self { id: random_bytes()?, secret: random_bytes()?, ca_pin })
    }

    /// The key of the token's record: 16 hex digits, not secret.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// The digest that the token's record holds.
    pub fn sha256(&self) -> Sha256 {
        sha256(&self.secret)
    }

    /// The secret part, as the enrolment request carries it.
    pub fn expose_secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// SHA-256 of the certificate (DER) that the collector's chain must end in.
    pub fn ca_pin(&self) -> Sha256 {
        self.ca_pin
    }

    /// The text to hand to the host's owner, once.
    pub fn text(&self) -> Secret {
        TOKEN.print(&[self.id.as_slice(), &self.secret, &self.ca_pin].concat())
    }
}

impl FromStr for JoinSecret {
    type Err = InvalidSecret;

    /// White space anywhere is ignored.
    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let bytes: [u8; 72] = TOKEN.parse(text)?;
        let mut token = Self { id: [0; 8], secret: [0; 32], ca_pin: [0; 32] };
        token.id.copy_from_slice(&bytes[..8]);
        token.secret.copy_from_slice(&bytes[8..40]);
        token.ca_pin.copy_from_slice(&bytes[40..]);
        Ok(token)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinSecret({}, hidden)", self.id())
    }
}

/// What a principal shows as its bearer text.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential([u8; 32]);

impl Credential {
    /// Draws a new credential.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(random_bytes()?))
    }

    /// The digest that the principal's record holds.
    pub fn sha256(&self) -> Sha256 {
        sha256(&self.0)
    }

    /// The text to hand to the principal, once.
    pub fn text(&self) -> Secret {
        CREDENTIAL.print(&self.0)
    }
}

impl FromStr for Credential {
    type Err = InvalidSecret;

    /// White space anywhere is ignored.
    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        CREDENTIAL.parse(text).map(Self)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_printing_and_wrapping() {
        let token = JoinSecret::generate([7; 32]).unwrap();
        let text = token.text();
        assert_eq!(text.expose().parse::<JoinSecret>().unwrap(), token);
        let wrapped = format!("  {}\n{}\r\n", &text.expose()[..50], &text.expose()[50..]);
        assert_eq!(wrapped.parse::<JoinSecret>().unwrap(), token);
        assert_eq!(token.ca_pin(), [7; 32]);
        assert_eq!(token.id().len(), 16);
        assert_eq!(token.sha256(), sha256(token.expose_secret()));
    }

    #[test]
    fn a_mangled_token_is_told_from_a_wrong_one() {
        let good = JoinSecret { id: [1; 8], secret: [2; 32], ca_pin: [3; 32] }.text();
        let good = good.expose();
        let newer = {
            let mut bytes = vec![9; 73];
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            format!("tocsin_{}", URL_SAFE_NO_PAD.encode(bytes))
        };
        for (text, says) in [
            ("", "does not begin with `tocsin_`"),
            ("tocsin_", "cut short"),
            (&good[..good.len() - 1], "damaged"),
            (&good[..good.len() - 4], "damaged"),
            (&good.replacen("AQEB", "AQEC", 1), "checksum"),
            (&good.replacen('A', "*", 1), "character"),
            (&newer, "version 9"),
            (&"x".repeat(10_000), "too long"),
            (Credential([0; 32]).text().expose(), "does not begin"),
        ] {
            let error = text.parse::<JoinSecret>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn every_single_wrong_character_is_noticed() {
        let text = Credential([0x5a; 32]).text();
        for at in 0..text.expose().len() {
            let mut bytes = text.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let wrong = String::from_utf8(bytes).unwrap();
            assert!(wrong.parse::<Credential>().is_err(), "{wrong}");
        }
        assert!(text.expose().parse::<Credential>().is_ok());
    }

    // Cases: C-X5
    #[test]
    fn nothing_secret_is_printed_by_accident() {
        let token = JoinSecret::generate([0; 32]).unwrap();
        let credential = Credential::generate().unwrap();
        let shown = format!("{token:?} {credential:?} {:?} {:?}", token.text(), credential.text());
        assert_eq!(
            shown,
            format!("JoinSecret({}, hidden) Credential(hidden) Secret(hidden) Secret(hidden)", token.id())
        );
    }

    #[test]
    fn digests_compare_whole() {
        let digest = sha256(b"abc");
        assert_eq!(hex(&digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(same_digest(&digest, &sha256(b"abc")));
        for at in [0, 15, 31] {
            let mut other = digest;
            other[at] ^= 1;
            assert!(!same_digest(&digest, &other), "byte {at}");
        }
    }
}
