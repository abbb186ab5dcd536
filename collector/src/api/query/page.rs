//! Pages: a list in parts that each fit into a message, and tokens that say where the next part begins.
//!
//! Pure. A list has an order that stands: the token holds the key of the last item given, and the next page is what
//! comes after that key, whatever has come and gone meanwhile. A token is of one request: with another one it is refused.
//! Promise: whatever stays in the list from the first page to the last is given exactly once.

use prost::Message;
use tonic::Status;

use super::reason::{self, BAD_PAGE};

/// Bytes of one page: what every client takes without being told to, with room to spare.
pub(in crate::api) const PAGE_BYTES_MAX: usize = 2 << 20;
/// Where tokens begin: another form of them gets another letter.
const FORM: char = 'a';
/// Hex digits of the checksum of a request.
const CHECKSUM_DIGITS: usize = 8;

/// What one page shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Page {
    size: usize,
    request: u32,
    /// The key after which it begins; `None` for the first page.
    pub(in crate::api) after: Option<Vec<u8>>,
}

impl Page {
    /// Reads what a caller asks. `request` is the whole request without size and token.
    pub(in crate::api) fn read(
        request: &impl Message,
        (asked, usual): (u32, usize),
        token: &str,
    ) -> Result<Self, Status> {
        let request = crc32fast::hash(&request.encode_to_vec());
        let size = if asked == 0 { usual } else { usize::try_from(asked).unwrap_or(usize::MAX) };
        let after = match token {
            "" => None,
            token => Some(key(token, request)?),
        };
        Ok(Self { size, request, after })
    }

    /// The page of a list, which begins after `self.after` already, and the token of the next.
    pub(in crate::api) fn of<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        bytes: impl Fn(&T) -> usize,
        key: impl Fn(&T) -> Vec<u8>,
    ) -> (Vec<T>, String) {
        let (mut page, mut taken) = (Vec::new(), 0);
        for item in items {
            let size = bytes(&item);
            let full = self.size <= page.len() || PAGE_BYTES_MAX < taken + size;
            if let Some(last) = page.last().filter(|_| full) {
                let token = self.token(&key(last));
                return (page, token);
            }
            taken += size;
            page.push(item);
        }
        (page, String::new())
    }

    fn token(&self, key: &[u8]) -> String {
        let mut token = format!("{FORM}{:08x}", self.request);
        for byte in key {
            token.push_str(&format!("{byte:02x}"));
        }
        token
    }
}

fn key(token: &str, request: u32) -> Result<Vec<u8>, Status> {
    let malformed =
        || reason::invalid(BAD_PAGE, "the page token is none of this collector's: begin anew without one");
    let rest = token.strip_prefix(FORM).ok_or_else(malformed)?;
    let (checksum, key) = rest.split_at_checked(CHECKSUM_DIGITS).ok_or_else(malformed)?;
    let checksum = u32::from_str_radix(checksum, 16).map_err(|_| malformed())?;
    if checksum != request {
        let why = "the page token is of another request: a list is read on with everything else as it was";
        return Err(reason::invalid(BAD_PAGE, why));
    }
    let digits = key.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err(malformed());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    digits.chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>().ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tocsin_proto::pb;

    use super::super::reason;
    use super::*;

    fn request(name: &str) -> pb::LabelValuesRequest {
        pb::LabelValuesRequest { name: name.into(), ..Default::default() }
    }

    fn read_all(mut list: Vec<String>, size: u32) -> (Vec<String>, usize) {
        list.sort();
        let (mut got, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = Page::read(&request("job"), (size, 1_000), &token).unwrap();
            let after = page.after.clone().map(|key| String::from_utf8(key).unwrap());
            let rest = list.iter().filter(|item| after.as_ref().is_none_or(|after| after < *item));
            let (items, next) = page.of(rest.cloned(), String::len, |item| item.as_bytes().to_vec());
            got.extend(items);
            pages += 1;
            if next.is_empty() {
                return (got, pages);
            }
            token = next;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pages_are_the_list(list in prop::collection::btree_set("[a-z\u{e9}]{1,9}", 0..60), size in 0..70_u32) {
            let list: Vec<String> = list.into_iter().collect();
            let (got, pages) = read_all(list.clone(), size);
            let size = if size == 0 { 1_000 } else { size as usize };
            prop_assert_eq!(pages, list.len().div_ceil(size).max(1));
            prop_assert_eq!(got, list);
        }

        #[test]
        fn no_token_is_a_panic(token in ".{0,40}") {
            let page = Page::read(&request("job"), (0, 10), &token);
            prop_assert!(page.is_ok() == token.is_empty());
        }
    }

    #[test]
    fn a_page_fits_into_a_message() {
        let third = "x".repeat(PAGE_BYTES_MAX / 3 + 1);
        let list: Vec<String> = (0..5).map(|number| format!("{number}{third}")).collect();
        assert_eq!(read_all(list.clone(), 0), (list, 3), "two to a page");
        let large = vec!["y".repeat(PAGE_BYTES_MAX + 1), "z".into()];
        assert_eq!(read_all(large.clone(), 0), (large, 2), "one that is larger goes alone");
    }

    #[test]
    fn tokens_of_other_requests_are_refused() {
        let page = Page::read(&request("job"), (1, 1), "").unwrap();
        let (_, token) = page.of(["a", "b"], |item| item.len(), |item| item.as_bytes().to_vec());
        assert!(Page::read(&request("job"), (9, 1), &token).is_ok(), "the size may change");
        for (name, token, says) in [
            ("env", token.as_str(), "another request"),
            ("job", "x", "none of this collector's"),
            ("job", &token[..9], "none of this collector's"),
            ("job", &token[..10], "none of this collector's"),
            ("job", &format!("{token}zz"), "none of this collector's"),
        ] {
            let status = Page::read(&request(name), (0, 1), token).unwrap_err();
            assert!(status.message().contains(says), "{name} {token}: {status}");
            assert_eq!(reason::of(&status), Some(BAD_PAGE));
        }
    }
}
