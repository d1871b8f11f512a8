//! Zip archives for the tests, byte by byte: with right checksums around whatever they hold.

/// A zip archive as torch writes it: stored records in one folder.
pub fn archive(records: &[(&str, &[u8])]) -> Vec<u8> {
    zip(records, |bytes| (0, bytes.to_vec()))
}

/// The same with deflated records.
pub fn deflated(records: &[(&str, &[u8])]) -> Vec<u8> {
    zip(records, |bytes| {
        use std::io::Write as _;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        (8, encoder.finish().unwrap())
    })
}

/// One whose records are packed so, a method and the bytes for each.
pub fn zip(records: &[(&str, &[u8])], pack: impl Fn(&[u8]) -> (u16, Vec<u8>)) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in records {
        let (method, packed) = pack(content);
        let mut fields = Vec::new();
        fields.extend(0u16.to_le_bytes());
        fields.extend(method.to_le_bytes());
        fields.extend(0u32.to_le_bytes());
        fields.extend(crc32fast::hash(content).to_le_bytes());
        fields.extend((packed.len() as u32).to_le_bytes());
        fields.extend((content.len() as u32).to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend(0u16.to_le_bytes());
        directory.extend(b"PK\x01\x02\x14\x00\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04\x14\x00");
        out.extend(&fields);
        out.extend(name.as_bytes());
        out.extend(&packed);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend((records.len() as u16).to_le_bytes());
    out.extend((records.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// The stored records of an archive, as its directory has them.
#[allow(dead_code)] // not in every test that has this file
pub fn stored(data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
    let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
    let heads = (0..data.len() - 46).filter(|at| data[*at..].starts_with(b"PK\x01\x02"));
    heads
        .map(|at| {
            let (size, local) = (u32_at(at + 24), u32_at(at + 42));
            let name = String::from_utf8(data[at + 46..at + 46 + u16_at(at + 28)].to_vec()).unwrap();
            let from = local + 30 + u16_at(local + 26) + u16_at(local + 28);
            (name, data[from..from + size].to_vec())
        })
        .collect()
}
