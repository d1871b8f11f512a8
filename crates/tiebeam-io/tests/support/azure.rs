//! What Azure's Blob Storage says in another way than the others: lists, blocks, copies and deletions by the batch.

use std::collections::BTreeMap;

use super::{Answer, Request, State, clock, decoded, refused, xml};

impl State {
    /// The answer to what is asked in Azure's way; none to what is asked as of all.
    pub(super) fn azure(&mut self, request: &Request) -> Option<Answer> {
        let asked = (request.method.as_str(), request.query.get("comp").map(String::as_str));
        Some(match asked {
            ("GET", Some("list")) => self.blobs(&request.path, &request.query),
            ("PUT", Some("block")) => {
                let block = (request.path.clone(), request.query["blockid"].clone());
                self.blocks.insert(block, request.body.clone());
                Answer { status: 201, headers: vec![], body: vec![] }
            }
            ("PUT", Some("blocklist")) => {
                let text = String::from_utf8(request.body.clone()).unwrap();
                let mut bytes = Vec::new();
                for piece in text.split("<Uncommitted>").skip(1) {
                    let id = piece.split("</Uncommitted>").next().unwrap();
                    match self.blocks.get(&(request.path.clone(), id.to_owned())) {
                        Some(block) => bytes.extend_from_slice(block),
                        None => return Some(refused(400, "InvalidBlockList")),
                    }
                }
                self.blocks.retain(|(key, _), _| *key != request.path);
                Self::written(self.put(&request.path, bytes))
            }
            ("PUT", None) if request.headers.contains_key("x-ms-copy-source") => {
                // A whole URL.
                let from = decoded(&request.headers["x-ms-copy-source"]);
                let from = from.splitn(4, '/').nth(3).and_then(|key| self.objects.get(key)).cloned();
                let Some(from) = from else { return Some(refused(404, "BlobNotFound")) };
                if request.headers.contains_key("if-none-match") && self.objects.contains_key(&request.path) {
                    return Some(refused(409, "BlobAlreadyExists"));
                }
                Self::written(self.put(&request.path, from.bytes))
            }
            ("POST", Some("batch")) => {
                let text = String::from_utf8(request.body.clone()).unwrap();
                let mut said = String::new();
                for (n, piece) in text.split("\r\nDELETE ").skip(1).enumerate() {
                    let key = decoded(piece.split([' ', '?']).next().unwrap().trim_start_matches('/'));
                    let status = if self.objects.remove(&key).is_some() { "202 Accepted" } else { "404 Not" };
                    said += &format!("--b\r\nContent-Type: application/http\r\nContent-ID: {n}\r\n\r\n");
                    said += &format!("HTTP/1.1 {status}\r\nx-ms-version: 2018-11-09\r\n\r\n");
                }
                let headers = vec![("content-type", "multipart/mixed; boundary=b".into())];
                Answer { status: 202, headers, body: (said + "--b--\r\n").into_bytes() }
            }
            _ => return None,
        })
    }

    fn blobs(&self, container: &str, query: &BTreeMap<String, String>) -> Answer {
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        let left: Vec<_> = self
            .entries(container, get("prefix"), query.contains_key("delimiter"))
            .into_iter()
            .filter(|(key, _)| key.as_str() > get("marker") && key.as_str() >= get("startFrom"))
            .collect();
        let mut text = String::from("<EnumerationResults><Blobs>");
        for (key, object) in left.iter().take(self.page) {
            let shown = key.replace('&', "&amp;").replace('<', "&lt;");
            text += &match object {
                None => format!("<BlobPrefix><Name>{shown}</Name></BlobPrefix>"),
                Some(o) => format!(
                    "<Blob><Name>{shown}</Name><Properties><Last-Modified>Tue, 01 Jan 2030 {} GMT</Last-Modified><Content-Length>{}</Content-Length><Content-Type>x</Content-Type><Etag>\"e{}\"</Etag></Properties></Blob>",
                    clock(o.modified),
                    o.bytes.len(),
                    o.version
                ),
            };
        }
        let more = left.len() > self.page;
        let marker = if more { left[self.page - 1].0.as_str() } else { "" };
        xml(format!("{text}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"))
    }
}
