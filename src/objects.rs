//! Folders of object stores (`s3://BUCKET/PREFIX`), behind folders here.
//!
//! Where the store is and who asks is said by the environment, as by other programs: AWS_REGION,
//! AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, and for stores of one's own
//! AWS_ENDPOINT_URL and AWS_ALLOW_HTTP.

use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart,
};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use crate::elsewhere::Elsewhere;
use crate::output;

/// Files up to this size go in one piece, others in parts of it.
const PART: usize = 16 << 20;
/// Parts that are on their way at once.
const AT_ONCE: usize = 4;
/// A part of a file, or one answer.
const TIMEOUT: &str = "300 seconds";
const CONNECTING: &str = "10 seconds";
/// What fails for a moment is tried again.
const RETRIES: RetryConfig = RetryConfig {
    backoff: object_store::BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    },
    max_retries: 5,
    retry_timeout: Duration::from_secs(60),
};
/// What says who asks, one of them at least.
const CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

/// A folder of an object store, and the folder here that it stands behind.
pub struct ObjectFolder {
    bucket: String,
    prefix: Key,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    here: PathBuf,
}

impl fmt::Debug for ObjectFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectFolder({} behind {})", self.url(), self.here.display())
    }
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}

/// The error and its causes.
fn chain(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words += &format!(": {text}");
        }
        cause = error.source();
    }
    words
}

impl ObjectFolder {
    /// Whether that is the URL of such a folder, and no path.
    pub fn is_url(text: &Path) -> bool {
        text.to_str().is_some_and(|text| text.starts_with("s3://"))
    }

    /// The folder of `url`, behind the folder `here`. It is asked for once, so that a bucket that
    /// is not there or cannot be reached is told of before any work.
    ///
    /// # Errors
    /// A URL that is none; no credentials; a store that does not answer, or refuses.
    pub fn open(url: &str, here: &Path) -> io::Result<ObjectFolder> {
        static PROVIDER: Once = Once::new();
        // Somebody may have chosen another one already, which does as well.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let wrong = |why: &str| invalid(format!("{url}: {why}: expected s3://BUCKET/PREFIX"));
        let parsed = Url::parse(url).map_err(|_| wrong("not a URL"))?;
        let bucket = parsed.host_str().filter(|host| !host.is_empty());
        let bucket = bucket.ok_or_else(|| wrong("it names no bucket"))?.to_string();
        if parsed.query().is_some() || parsed.fragment().is_some() || parsed.port().is_some() {
            return Err(wrong("a bucket and a path are all that it has"));
        }
        let prefix = Key::from_url_path(parsed.path())
            .map_err(|error| wrong(&format!("its path is none ({error})")))?;
        if !CREDENTIALS.iter().any(|name| set(name)) && set("AWS_ENDPOINT_URL") {
            return Err(no_credentials(url));
        }
        let timeouts =
            [(ClientConfigKey::Timeout, TIMEOUT), (ClientConfigKey::ConnectTimeout, CONNECTING)];
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&bucket).with_retry(RETRIES);
        for (key, value) in timeouts {
            let key = AmazonS3ConfigKey::Client(key);
            if builder.get_config_value(&key).is_none_or(|set| set.is_empty() || set == "5s") {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.build().map_err(|error| wrong(&chain(&error)))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let folder = ObjectFolder { bucket, prefix, store, runtime, here: here.to_path_buf() };
        let mut listed = folder.store.list(Some(&folder.prefix));
        match folder.runtime.block_on(listed.next()) {
            Some(Err(error)) => Err(folder.told(error, &folder.url())),
            _ => {
                drop(listed);
                Ok(folder)
            }
        }
    }

    /// The folder here.
    pub fn here(&self) -> &Path {
        &self.here
    }

    /// Of the folder itself.
    pub fn url(&self) -> String {
        self.url_of_key(&self.prefix)
    }

    /// Of a file in it, by where it is here.
    ///
    /// # Errors
    /// A file that is not in the folder.
    pub fn url_of(&self, path: &Path) -> io::Result<String> {
        Ok(self.url_of_key(&self.key(path)?))
    }

    fn url_of_key(&self, key: &Key) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// The name there of a file here.
    fn key(&self, path: &Path) -> io::Result<Key> {
        let outside = || invalid(format!("{}: not in {}", path.display(), self.here.display()));
        let inside = path.strip_prefix(&self.here).map_err(|_| outside())?;
        // As it is written, so that it is the same name here when it comes back.
        let mut key = self.prefix.to_string();
        for part in inside.components() {
            let part = part
                .as_os_str()
                .to_str()
                .ok_or_else(|| invalid(format!("{}: a name that is not UTF-8", path.display())))?;
            key = if key.is_empty() { part.to_string() } else { format!("{key}/{part}") };
        }
        let key = Key::parse(&key).map_err(|error| {
            invalid(format!("{}: no name for an object store: {error}", path.display()))
        })?;
        Ok(key)
    }

    /// Brings all files here that are there and not here; how many there are.
    ///
    /// # Errors
    /// As those of [`Elsewhere::fetch`].
    pub fn fetch_all(&self) -> io::Result<usize> {
        let list = async {
            let mut all = Vec::new();
            let mut listed = self.store.list(Some(&self.prefix));
            while let Some(found) = listed.next().await {
                all.push(found?.location);
            }
            Ok::<_, Error>(all)
        };
        let listed = self.runtime.block_on(list);
        let keys = listed.map_err(|error| self.told(error, &self.url()))?;
        for key in &keys {
            let parts = key.prefix_match(&self.prefix);
            let parts: Vec<String> =
                parts.into_iter().flatten().map(|part| part.as_ref().to_string()).collect();
            // A name that leads outside is nobody's here.
            if parts.is_empty()
                || parts.iter().any(|part| part == ".." || part.contains(['/', '\\']))
            {
                continue;
            }
            let path = parts.iter().fold(self.here.clone(), |path, part| path.join(part));
            self.fetch(&path)?;
        }
        Ok(keys.len())
    }

    /// Hands on all files here of which `wanted` says so.
    ///
    /// # Errors
    /// As those of [`Elsewhere::put`].
    pub fn put_all(&self, wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        let mut folders = vec![self.here.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files.push(entry.path());
                }
            }
        }
        files.sort();
        let inside = |path: &PathBuf| path.strip_prefix(&self.here).is_ok_and(wanted);
        files.iter().filter(|path| inside(path)).try_for_each(|path| self.put(path))
    }

    /// What went wrong, in words.
    fn told(&self, error: Error, url: &str) -> io::Error {
        let words = chain(&error);
        let has = |words: &str, any: &[&str]| any.iter().any(|text| words.contains(text));
        let refused =
            matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
        if has(&words, &["NoSuchBucket"]) {
            let words = format!("{url}: there is no bucket `{}`", self.bucket);
            return io::Error::new(io::ErrorKind::NotFound, words);
        }
        let denied =
            ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"];
        if refused || has(&words, &denied) {
            let words = format!(
                "{url}: access is refused: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY have to be \
                    those of somebody who may read and write there ({words})"
            );
            return io::Error::new(io::ErrorKind::PermissionDenied, words);
        }
        // Where nobody says who asks, the machine's own role is asked for.
        if !CREDENTIALS.iter().any(|name| set(name)) {
            return no_credentials(url);
        }
        let http = ["URL scheme is not allowed", "scheme is not", "BadScheme"];
        let hint = match has(&words, &http) {
            true => "; AWS_ALLOW_HTTP=true allows addresses without TLS",
            false => "",
        };
        let place = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
        let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
        io::Error::other(format!("{url}: the object store{place} failed: {words}{hint}"))
    }

    async fn upload(&self, key: &Key, file: &mut File, length: u64) -> io::Result<()> {
        let told = |error| self.told(error, &self.url_of_key(key));
        if length <= PART as u64 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let put = self.store.put(key, PutPayload::from(bytes)).await;
            return put.map(drop).map_err(told);
        }
        let upload = self.store.put_multipart(key).await.map_err(told)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut part = vec![0; PART];
        loop {
            let count = match file.read(&mut part) {
                Ok(count) => count,
                Err(error) => {
                    // What was sent of it is nobody's file.
                    let _ = upload.abort().await;
                    return Err(error);
                }
            };
            let Some(read) = part.get(..count).filter(|read| !read.is_empty()) else { break };
            if let Err(error) = upload.wait_for_capacity(AT_ONCE).await {
                let _ = upload.abort().await;
                return Err(told(error));
            }
            upload.write(read);
        }
        upload.finish().await.map(drop).map_err(told)
    }
}

fn no_credentials(url: &str) -> io::Error {
    let words = format!(
        "{url}: no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and this \
            machine has no role (files of profiles are not read)"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, words)
}

impl Elsewhere for ObjectFolder {
    fn fetch(&self, path: &Path) -> io::Result<bool> {
        if path.exists() {
            return Ok(true);
        }
        let key = self.key(path)?;
        let url = self.url_of_key(&key);
        let found = match self.runtime.block_on(self.store.get(&key)) {
            Err(Error::NotFound { .. }) => return Ok(false),
            other => other.map_err(|error| self.told(error, &url))?,
        };
        let size = found.meta.size;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        output::write(path, |out| {
            let mut stream = found.into_stream();
            let mut count = 0;
            while let Some(piece) = self.runtime.block_on(stream.next()) {
                let piece = piece.map_err(|error| self.told(error, &url))?;
                count += piece.len() as u64;
                out.write_all(&piece)?;
            }
            match count == size {
                true => Ok(()),
                false => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{url}: {count} of its {size} bytes came"),
                )),
            }
        })?;
        Ok(true)
    }

    fn put(&self, path: &Path) -> io::Result<()> {
        let key = self.key(path)?;
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        self.runtime.block_on(self.upload(&key, &mut file, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        assert!(ObjectFolder::is_url(Path::new("s3://bucket/a")));
        for path in ["s3:/bucket", "bucket/s3://", "/s3", "https://a/b"] {
            assert!(!ObjectFolder::is_url(Path::new(path)), "{path}");
        }
        for (url, says) in [
            ("s3://", "s3://BUCKET"),
            ("s3:///a", "no bucket"),
            ("s3://bucket/a?b", "a bucket and a path"),
        ] {
            let error = ObjectFolder::open(url, Path::new(".")).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
