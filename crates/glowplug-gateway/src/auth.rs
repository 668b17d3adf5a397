//! Who calls: reads the credential and asks the host about it.

use glowplug_api::ErrorType;
use http::header::{self, HeaderMap};

use crate::answer::Problem;
use crate::host::{Access, AuthProblem, Caller, Host};

/// A caller's credential, as found in the `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Credential<'a> {
    scheme: Scheme,
    key: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// `Key id:secret`
    Key,
    /// `Bearer token`
    Bearer,
}

fn credential(headers: &HeaderMap) -> Option<Credential<'_>> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let scheme = if scheme.eq_ignore_ascii_case("key") {
        Scheme::Key
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Scheme::Bearer
    } else {
        return None;
    };
    Some(Credential { scheme, key: key.trim() })
}

/// Admits a caller to an app, and takes from the headers what is a secret between caller and node.
///
/// `token` stands in for a missing header, where a protocol cannot send one.
pub(crate) fn admit(
    host: &dyn Host,
    access: Access,
    headers: &mut HeaderMap,
    token: Option<&str>,
) -> Result<Caller, Problem> {
    let credential = credential(headers);
    let key = credential.map(|credential| credential.key).or(token);
    let caller = match (host.authenticate(key), access) {
        (Ok(caller), _) => caller,
        (Err(_), Access::Public) => Caller::default(),
        (Err(problem), Access::Private) => return Err(unauthorized(problem)),
    };
    // A bearer token that means nothing here may be meant for the app. `Key` is only ever ours.
    let ours =
        credential.is_some_and(|found| found.scheme == Scheme::Key || !caller.key_id.is_empty());
    if ours {
        headers.remove(header::AUTHORIZATION);
    }
    Ok(caller)
}

/// What the caller sent as a credential, whatever its scheme.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    credential(headers).map(|credential| credential.key)
}

/// The caller by its key alone, where no app is meant.
pub(crate) fn known(host: &dyn Host, headers: &HeaderMap) -> Result<Caller, Problem> {
    host.authenticate(presented(headers)).map_err(|problem| {
        let detail = match problem {
            AuthProblem::Missing => "this needs a key: send `Authorization: Key ID:SECRET`",
            AuthProblem::Wrong => "the key is not one of this node's",
        };
        Problem::new(ErrorType::Unauthorized, detail)
    })
}

/// The caller holds a key of this node, whatever the app.
pub(crate) fn knows_node(host: &dyn Host, headers: &HeaderMap) -> bool {
    host.authenticate(credential(headers).map(|credential| credential.key)).is_ok()
}

fn unauthorized(problem: AuthProblem) -> Problem {
    let detail = match problem {
        AuthProblem::Missing => "this app needs a key: send `Authorization: Key ID:SECRET`",
        AuthProblem::Wrong => "the key is not one of this node's",
    };
    Problem::new(ErrorType::Unauthorized, detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_found_in_both_schemes() {
        let cases = [
            ("Key id:secret", Some((Scheme::Key, "id:secret"))),
            ("key  id:secret ", Some((Scheme::Key, "id:secret"))),
            ("Bearer a.b.c", Some((Scheme::Bearer, "a.b.c"))),
            ("Basic abc", None),
            ("Key", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            let expected = expected.map(|(scheme, key)| Credential { scheme, key });
            assert_eq!(credential(&headers), expected, "{value}");
        }
        assert_eq!(credential(&HeaderMap::new()), None);
    }
}
