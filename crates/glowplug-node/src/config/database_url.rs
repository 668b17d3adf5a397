//! The address of a database, which holds a password and so is never shown whole.

use std::fmt;

/// Stands for a password.
const MASK: &str = "***";
/// Keys of the query whose values are secrets.
const SECRET_KEYS: [&str; 2] = ["password", "sslpassword"];

/// `postgres://user:password@host:port/database?key=value`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// `None`: it does not begin as such an address does.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        rest.filter(|rest| !rest.is_empty()).map(|_| Self(text.to_owned()))
    }

    /// With its password, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn masked(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("postgres", &self.0));
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        // The last `@`, since one in a password may stand unescaped.
        let rest = match rest.rsplit_once('@') {
            Some((user, place)) => match user.split_once(':') {
                Some((user, _)) => format!("{user}:{MASK}@{place}"),
                None => format!("{user}@{place}"),
            },
            None => rest.to_owned(),
        };
        let query = query.map(|query| {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((key, _)) if SECRET_KEYS.contains(&key) => format!("{key}={MASK}"),
                _ => pair.to_owned(),
            });
            format!("?{}", pairs.collect::<Vec<_>>().join("&"))
        });
        format!("{scheme}://{rest}{}", query.unwrap_or_default())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let check = |url: &str, shown: &str| {
            let url = DatabaseUrl::parse(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("DatabaseUrl({shown})"));
        };
        check("postgres://me:s3cret@db:5432/q", "postgres://me:***@db:5432/q");
        check("postgresql://me:a@b@db/q", "postgresql://me:***@db/q");
        check("postgres://me:s:3@db/q", "postgres://me:***@db/q");
        check("postgres://me@db/q", "postgres://me@db/q");
        check("postgres://db/q", "postgres://db/q");
        check(
            "postgres:///q?host=/run/pg&password=s3cret&sslpassword=x&user=me",
            "postgres:///q?host=/run/pg&password=***&sslpassword=***&user=me",
        );
        for bad in ["", "postgres://", "mysql://a/b", "host=db password=s3cret"] {
            assert_eq!(DatabaseUrl::parse(bad), None, "{bad}");
        }
    }
}
