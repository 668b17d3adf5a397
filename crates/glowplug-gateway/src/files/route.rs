//! What a path below `/files` or `/storage` means.

/// A path of ours. Ids are as written: whether there is such a thing is the host's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilesRoute<'a> {
    /// `/storage/auth/token`
    AuthToken,
    /// `/storage/upload/initiate`
    Initiate,
    /// `/storage/upload/initiate-multipart`
    InitiateParts,
    /// `/files/upload`
    Upload,
    /// `/files/upload/multipart`
    BeginParts,
    /// `/files/upload/{file}[/{n}|/complete]`: what an upload address names.
    Granted { file: &'a str, step: Step<'a> },
    /// `/files/{id}[/{name}]`
    File { id: &'a str, name: Option<&'a str> },
    /// `/files/{id}/{name}/multipart/{upload}[/{n}|/complete]`
    Parts { file: &'a str, upload: &'a str, step: Step<'a> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Whole,
    /// The number as written.
    Part(&'a str),
    Complete,
}

impl<'a> Step<'a> {
    fn parse(segment: &'a str) -> Self {
        if segment == "complete" { Self::Complete } else { Self::Part(segment) }
    }
}

impl<'a> FilesRoute<'a> {
    /// `None`: the path is none of these.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        if let Some(below) = path.strip_prefix("/storage/") {
            return match below.strip_suffix('/').unwrap_or(below) {
                "auth/token" => Some(Self::AuthToken),
                "upload/initiate" => Some(Self::Initiate),
                "upload/initiate-multipart" => Some(Self::InitiateParts),
                _ => None,
            };
        }
        // Longest form: id, name, `multipart`, upload, step.
        let segments: Vec<&str> = path.strip_prefix("/files/")?.splitn(6, '/').collect();
        match *segments.as_slice() {
            ["upload"] => Some(Self::Upload),
            ["upload", "multipart"] => Some(Self::BeginParts),
            ["upload", file] => Some(Self::Granted { file, step: Step::Whole }),
            ["upload", file, step] => Some(Self::Granted { file, step: Step::parse(step) }),
            [id] => Some(Self::File { id, name: None }),
            [id, name] => Some(Self::File { id, name: Some(name) }),
            [file, _, "multipart", upload] => Some(Self::Parts { file, upload, step: Step::Whole }),
            [file, _, "multipart", upload, step] => {
                Some(Self::Parts { file, upload, step: Step::parse(step) })
            }
            _ => None,
        }
    }

    /// Pages of any origin may use it: reading needs the address alone, and so does uploading to one that
    /// was given out.
    pub(crate) fn is_for_browsers(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Granted { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_routes() {
        use FilesRoute as R;
        let parts = |step| Some(R::Parts { file: "i", upload: "u", step });
        for (path, expected) in [
            ("/storage/auth/token", Some(R::AuthToken)),
            ("/storage/upload/initiate", Some(R::Initiate)),
            ("/storage/upload/initiate-multipart/", Some(R::InitiateParts)),
            ("/storage/upload", None),
            ("/files", None),
            ("/files/upload", Some(R::Upload)),
            ("/files/upload/multipart", Some(R::BeginParts)),
            ("/files/upload/i", Some(R::Granted { file: "i", step: Step::Whole })),
            ("/files/upload/i/7", Some(R::Granted { file: "i", step: Step::Part("7") })),
            ("/files/upload/i/complete", Some(R::Granted { file: "i", step: Step::Complete })),
            ("/files/i", Some(R::File { id: "i", name: None })),
            ("/files/i/a%2Fb.png", Some(R::File { id: "i", name: Some("a%2Fb.png") })),
            ("/files/../x", Some(R::File { id: "..", name: Some("x") })),
            ("/files/i/n/multipart/u/1", parts(Step::Part("1"))),
            ("/files/i/n/multipart/u/complete", parts(Step::Complete)),
            ("/files/i/n/multipart/u", parts(Step::Whole)),
            ("/files/i/n/multipart/u/1/2", None),
            ("/files/i/n/other/u/1", None),
            ("/file/i", None),
        ] {
            assert_eq!(FilesRoute::parse(path), expected, "{path}");
        }
    }
}
