//! Which series there are, the names of their labels, and the values of one. No sample is read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use tocsin_promql::Selector;
use tocsin_shared::labels::Labels;

use super::answer;
use super::call::{self, Ended, PATIENCE};
use super::failure::{Failure, Kind};
use super::parameters::Asked;
use crate::api::Api;
use crate::ask;
use crate::clock::now;
use crate::samples::Store;

/// How far back names are looked for when nobody says: what a dashboard offers should still be there. As over gRPC.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3_600);

/// `/api/v1/series`.
pub(super) async fn series(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let limit = asked.limit("limit")?;
    let span = asked.listed(LOOK_BACK, now())?;
    let selectors = asked.selectors()?;
    if selectors.is_empty() {
        return Err(Failure::new(Kind::BadData, "no match[] parameter provided"));
    }
    let work = move |store: &Store, ended: &Ended| {
        let mut found = ask::series(store, &selectors, span, |_| !ended.is());
        going_on(ended)?;
        let limit = limit.unwrap_or(found.len());
        let is_cut = limit < found.len();
        found.truncate(limit);
        let mut json = answer::begin(found.len() * 256);
        json.raw("[");
        for (at, labels) in found.iter().enumerate() {
            json.raw(if at == 0 { "" } else { "," }).labels(labels);
            answer::check(&json)?;
        }
        json.raw("]");
        answer::end(json, answer::cut(is_cut))
    };
    let (body, place) = call::run(&api, &asked.caller, PATIENCE, work).await?;
    Ok(call::holding(answer::response(body), place))
}

/// `/api/v1/labels`.
pub(super) async fn labels(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    listed(&api, &asked, |labels, found| labels.iter().for_each(|(name, _)| keep(found, name))).await
}

/// `/api/v1/label/{name}/values`.
pub(super) async fn values(
    State(api): State<Api>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let name = if name.starts_with("U__") { unescape(&name).unwrap_or(name) } else { name };
    listed(&api, &asked, move |labels, found| {
        labels.get(&name).into_iter().for_each(|value| keep(found, value));
    })
    .await
}

/// A list of texts that the labels of each series give.
async fn listed(
    api: &Api,
    asked: &Asked,
    look: impl Fn(&Labels, &mut BTreeSet<String>) + Send + 'static,
) -> Result<Response, Failure> {
    let limit = asked.limit("limit")?;
    let span = asked.listed(LOOK_BACK, now())?;
    let selectors: Vec<Selector> = asked.selectors()?;
    let work = move |store: &Store, ended: &Ended| {
        let found = RefCell::new(BTreeSet::new());
        let take = |labels: &Labels| {
            if !ended.is() {
                look(labels, &mut found.borrow_mut());
            }
            false // Its texts are all that is wanted: no list of series is made.
        };
        ask::series(store, &selectors, span, take);
        going_on(ended)?;
        let found = found.into_inner();
        let limit = limit.unwrap_or(found.len());
        let mut json = answer::begin(found.len() * 24);
        json.texts(found.iter().take(limit).map(String::as_str));
        answer::end(json, answer::cut(limit < found.len()))
    };
    let (body, place) = call::run(api, &asked.caller, PATIENCE, work).await?;
    Ok(call::holding(answer::response(body), place))
}

/// What was found is not all if the work had to end.
fn going_on(ended: &Ended) -> Result<(), Failure> {
    if ended.is() { Err(ended.failure()) } else { Ok(()) }
}

fn keep(found: &mut BTreeSet<String>, text: &str) {
    if !found.contains(text) {
        found.insert(text.to_owned());
    }
}

/// The name behind `U__…`, the form of names that are not plain words: `__` is `_`, `_2e_` the character of this code.
/// `None` if it is no such form.
fn unescape(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("U__")?;
    let mut plain = String::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once('_') {
        plain.push_str(before);
        rest = match after.strip_prefix('_') {
            Some(after) => {
                plain.push('_');
                after
            }
            None => {
                let (code, after) = after.split_once('_')?;
                let is_code =
                    (1..=6).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_hexdigit());
                let code = is_code.then(|| u32::from_str_radix(code, 16).ok()).flatten()?;
                plain.push(char::from_u32(code)?);
                after
            }
        };
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read() {
        for (escaped, plain) in [
            ("U__http_2e_status", Some("http.status")),
            ("U__a__b", Some("a_b")),
            ("U___e9__2f_x", Some("é/x")),
            ("U__plain", Some("plain")),
            ("U__half_2e", None),
            ("U__no_hex_x", None),
            ("U__d_d800_", None),
            ("plain", None),
        ] {
            assert_eq!(unescape(escaped).as_deref(), plain, "{escaped}");
        }
    }
}
