//! Kernels that keep activations in f16: their text, written for f32, with conversions where such
//! bindings are read and written.

/// The parameter that names bindings whose elements are f16 where the text has f32.
pub(super) const HALVES: &str = "halves";

/// `text` with the bindings `names` in f16: what is read of them is widened, what is written
/// rounded, and what f16 cannot hold becomes its greatest number, 65504, not infinity.
///
/// # Errors
/// A name that the text does not bind, or elements that are changed in place.
pub(super) fn halved(text: &str, names: &[String]) -> Result<String, String> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for name in names {
        let ty = declared(text, name).ok_or(format!("it binds no `{name}` of f32"))?;
        found.push((name, ty));
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    if !text.contains("enable f16;") {
        out.push_str("enable f16;\n");
    }
    for line in text.split_inclusive('\n') {
        if !line.trim_start().starts_with("enable ") {
            continue;
        }
        out.push_str(line);
    }
    let rest: String = text
        .split_inclusive('\n')
        .filter(|line| !line.trim_start().starts_with("enable "))
        .collect();
    out.push_str(&converted(&rest, &found)?);
    let mut types: Vec<&str> = found.iter().map(|(_, ty)| ty.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    for ty in types {
        out.push_str(&format!(
            "\nfn {}(v: {ty}) -> {} {{ return {}(clamp(v, {ty}(-65504.0), {ty}(65504.0))); }}\n",
            rounding(ty),
            half_of(ty),
            half_of(ty)
        ));
    }
    Ok(out)
}

/// The type of the elements of the binding `name`, if they are f32.
fn declared(text: &str, name: &str) -> Option<String> {
    let of_line = |line: &str| {
        let (space, rest) = line.split_once("var<storage")?.1.split_once('>')?;
        let ty = rest.trim().strip_prefix(name)?.trim_start().strip_prefix(':')?.trim_start();
        let ty = ty.strip_prefix("array<")?.trim_end().strip_suffix(">;")?;
        (!space.contains('<') && ty.contains("f32")).then(|| ty.to_string())
    };
    text.lines().filter(|line| !line.trim_start().starts_with("//")).find_map(of_line)
}

fn half_of(ty: &str) -> String {
    ty.replace("f32", "f16")
}

fn rounding(ty: &str) -> String {
    format!("halved_{}", ty.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
}

/// `text` with every use of these bindings converted.
fn converted(text: &str, names: &[(&str, String)]) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            let (comment, later) = rest.split_at(rest.find('\n').unwrap_or(rest.len()));
            out.push_str(comment);
            rest = later;
            continue;
        }
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length == 0 || is_word(before) {
            out.push(c);
            before = c;
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, later) = rest.split_at(length);
        let of_struct = before == '.';
        before = word.chars().last().unwrap_or(' ');
        rest = later;
        out.push_str(word);
        let Some((_, ty)) = names.iter().find(|(name, _)| *name == word && !of_struct) else {
            continue;
        };
        if let Some(later) = rest.strip_prefix(": array<").filter(|_| is_declared(&out)) {
            let later = later.strip_prefix(ty.as_str()).unwrap_or(later);
            out.push_str(&format!(": array<{}", half_of(ty)));
            rest = later;
            continue;
        }
        let Some(inside) = rest.strip_prefix('[') else { continue };
        let end = closing(inside, ']').ok_or(format!("`{word}[` is not closed"))?;
        let index = converted(&inside[..end], names)?;
        rest = &inside[end + 1..];
        before = ']';
        let next = rest.trim_start();
        if next.len() > 1 && next[1..].starts_with('=') && "+-*/%&|^".contains(&next[..1]) {
            return Err(format!("`{word}` is changed in place"));
        }
        let assigned = next.strip_prefix('=').filter(|value| !value.starts_with('='));
        if let Some(value) = assigned {
            let end = closing(value, ';').ok_or(format!("what `{word}` is given has no end"))?;
            let value_text = converted(value[..end].trim(), names)?;
            out.push_str(&format!("[{index}] = {}({value_text})", rounding(ty)));
            rest = &value[end..];
            continue;
        }
        out.truncate(out.len() - word.len());
        out.push_str(&format!("{ty}({word}[{index}])"));
    }
    Ok(out)
}

/// Whether what was written so far ends in the name of a binding that is being declared.
fn is_declared(out: &str) -> bool {
    out.lines().last().is_some_and(|line| line.contains("var<storage"))
}

/// Where `end` stands outside of all brackets.
fn closing(text: &str, end: char) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            c if c == end && depth == 0 => return Some(at),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::wgpu::{Scalar, reflect};

    const TEXT: &str = "\
// y[i] = x[i]
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> max_x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
  let i = u32(x[group.x].x); // y[i] = x[i]
  if (x[i].y == max_x[i]) {
    y[i] =
      x[i] * max_x[i];
  }
}
";

    #[test]
    fn bindings_are_converted_where_they_are_read_and_written() {
        let text = halved(TEXT, &["x".to_string(), "y".into()]).unwrap();
        let (_, interface) = reflect("it", &text).unwrap();
        let scalars: Vec<Scalar> = interface.bindings.iter().map(|b| b.scalar).collect();
        assert_eq!(scalars, [Scalar::F16, Scalar::F32, Scalar::F16], "{text}");
        assert!(text.contains("vec4<f32>(x[u32(") || text.contains("vec4<f32>(x[i])"), "{text}");
        assert!(text.contains("y[i] = halved_vec4f32(vec4<f32>(x[i]) * max_x[i]);"), "{text}");
        assert!(text.contains("// y[i] = x[i]\n@group"), "{text}");
        assert!(halved(TEXT, &["z".to_string()]).unwrap_err().contains("`z`"));
        let added = TEXT.replace("y[i] =\n", "y[i] +=\n");
        assert!(halved(&added, &["y".to_string()]).unwrap_err().contains("in place"));
    }
}
