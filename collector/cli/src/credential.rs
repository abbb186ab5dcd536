//! Where the collector is and with which credential it is asked: a file of the collector's, mode 0600.
//!
//! Promise: the first file that exists is used, whatever is in it; one that others may read is refused. A credential
//! never comes from an argument or a variable, where every process of the host could see it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tocsin_proto::connect::{Endpoint, InvalidEndpoint};
use tocsin_shared::private_file::{self, PrivateFileError};
use tocsin_shared::secret::Secret;

use crate::arguments::Global;

/// Where a packaged collector keeps its file.
const SYSTEM_DATA: &str = "/var/lib/tocsin";

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error(
        "no credential found; looked for {}; start a collector with `tocsin up`, or name a file with --credential",
        .looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Nowhere { looked: Vec<PathBuf> },
    #[error("{path} has mode {mode:03o}, so others can read the credential in it; run `chmod 600 {path}`")]
    Open { path: PathBuf, mode: u32 },
    #[error("cannot read the credential in {path}: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("{path} is not a credential file: {reason}; the collector writes it as credential.toml")]
    Format { path: PathBuf, reason: String },
    #[error("{path}: {reason}")]
    Endpoint { path: PathBuf, reason: InvalidEndpoint },
    #[error(
        "neither HOME nor XDG_STATE_HOME is set, so there is no place for the data; name one with --data"
    )]
    NoHome,
}

/// What a credential file says.
#[derive(Clone, Debug)]
pub struct Connection {
    pub endpoint: Endpoint,
    /// The authorities to trust, PEM.
    pub authority_pem: String,
    pub credential: Secret,
    /// The file that it comes from.
    pub file: PathBuf,
}

#[derive(Deserialize)]
struct RawConnection {
    endpoint: String,
    ca: String,
    credential: String,
}

/// What of the environment decides where files lie.
#[derive(Clone, Debug, Default)]
pub struct Places {
    pub state_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Places {
    /// From the process' environment; what is relative or empty does not count, as XDG asks.
    pub fn from_env() -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self { state_home: absolute("XDG_STATE_HOME"), home: absolute("HOME") }
    }

    /// The data directory of `tocsin up` unless another one is named.
    pub fn data(&self) -> Option<PathBuf> {
        let state = self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(state.join("tocsin"))
    }
}

/// The data directory: the one named, or the default one.
pub fn data_dir(global: &Global, places: &Places) -> Result<PathBuf, CredentialError> {
    global.data.clone().or_else(|| places.data()).ok_or(CredentialError::NoHome)
}

/// The files to look at, in order. A file or directory that was named is the only one.
pub fn candidates(global: &Global, places: &Places) -> Vec<PathBuf> {
    let of = |data: &Path| data.join("collector/credential.toml");
    match (&global.credential, &global.data) {
        (Some(file), _) => vec![file.clone()],
        (None, Some(data)) => vec![of(data)],
        (None, None) => {
            places.data().iter().map(PathBuf::as_path).chain([Path::new(SYSTEM_DATA)]).map(of).collect()
        }
    }
}

/// Reads the first file that exists; `--endpoint` replaces the endpoint in it.
pub fn find(global: &Global, places: &Places) -> Result<Connection, CredentialError> {
    let looked = candidates(global, places);
    for file in &looked {
        if let Some(mut connection) = read(file)? {
            if let Some(endpoint) = &global.endpoint {
                connection.endpoint = endpoint.clone();
            }
            return Ok(connection);
        }
    }
    Err(CredentialError::Nowhere { looked })
}

/// One file; `None` if it is not there.
pub fn read(file: &Path) -> Result<Option<Connection>, CredentialError> {
    let path = || file.to_owned();
    let text = private_file::read(file).map_err(|error| match error {
        PrivateFileError::Open { path, mode } => CredentialError::Open { path, mode },
        PrivateFileError::Io { source, .. } => {
            CredentialError::Unreadable { path: path(), reason: source.to_string() }
        }
        other => CredentialError::Unreadable { path: path(), reason: other.to_string() },
    })?;
    let Some(text) = text else { return Ok(None) };
    // The parser's message quotes the line, and with it the credential: only its first line is told.
    let raw: RawConnection = toml::from_str(&text)
        .map_err(|error| CredentialError::Format { path: path(), reason: error.message().to_owned() })?;
    let endpoint =
        raw.endpoint.parse().map_err(|reason| CredentialError::Endpoint { path: path(), reason })?;
    Ok(Some(Connection {
        endpoint,
        authority_pem: raw.ca,
        credential: Secret::new(raw.credential.trim()),
        file: path(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    const GOOD: &str = "endpoint = \"127.0.0.1:7640\"\nca = \"\"\"\n-----BEGIN CERTIFICATE-----\n\"\"\"\ncredential = \"tocsinc_AQ\"\n";

    fn write(dir: &Path, text: &str, mode: u32) -> PathBuf {
        fs::create_dir_all(dir.join("collector")).unwrap();
        let file = dir.join("collector/credential.toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn global(data: Option<&Path>, credential: Option<&Path>) -> Global {
        Global { data: data.map(Into::into), credential: credential.map(Into::into), ..Global::default() }
    }

    #[test]
    fn files_are_looked_for_in_order() {
        let (state, home) = (Some(PathBuf::from("/state")), Some(PathBuf::from("/home/ann")));
        let system = "/var/lib/tocsin/collector/credential.toml";
        for (global, places, expected) in [
            (
                global(None, Some(Path::new("c.toml"))),
                Places { state_home: state.clone(), home: home.clone() },
                vec!["c.toml"],
            ),
            (global(Some(Path::new("/d")), None), Places::default(), vec!["/d/collector/credential.toml"]),
            (
                global(None, None),
                Places { state_home: state, home: home.clone() },
                vec!["/state/tocsin/collector/credential.toml", system],
            ),
            (
                global(None, None),
                Places { state_home: None, home },
                vec!["/home/ann/.local/state/tocsin/collector/credential.toml", system],
            ),
            (global(None, None), Places::default(), vec![system]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(candidates(&global, &places), expected);
        }
        assert!(matches!(data_dir(&global(None, None), &Places::default()), Err(CredentialError::NoHome)));
    }

    #[test]
    fn a_good_file_is_read_and_the_endpoint_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), GOOD, 0o600);
        let mut asked = global(Some(dir.path()), None);
        let found = find(&asked, &Places::default()).unwrap();
        assert_eq!(
            (found.endpoint.to_string().as_str(), found.credential.expose()),
            ("127.0.0.1:7640", "tocsinc_AQ")
        );
        assert_eq!(found.file, file);
        asked.endpoint = Some("other:1".parse().unwrap());
        assert_eq!(find(&asked, &Places::default()).unwrap().endpoint.to_string(), "other:1");
        assert!(!format!("{found:?}").contains("tocsinc_"), "a credential must not be printed by accident");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, mode, says) in [
            (GOOD, 0o644, "has mode 644, so others can read the credential in it; run `chmod 600"),
            (GOOD, 0o604, "has mode 604"),
            ("endpoint = 1", 0o600, "is not a credential file"),
            ("endpoint = \"x:1\"\ncredential = \"tocsinc_secret", 0o600, "is not a credential file"),
            ("endpoint = \"x\"\nca = \"\"\ncredential = \"c\"", 0o600, "names no port"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), text, mode);
            let error = find(&global(Some(dir.path()), None), &Places::default()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("tocsinc_secret"), "{error}");
        }
        let error = find(&global(None, Some(Path::new("/nowhere/c.toml"))), &Places::default())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "no credential found; looked for /nowhere/c.toml; start a collector with `tocsin up`, or name a file with --credential"
        );
    }
}
