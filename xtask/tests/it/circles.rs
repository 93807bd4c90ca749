//! No module imports itself in a circle, also not through a re-export.
//!
//! A module is a file below `src/` with everything in the directory of its name. It imports another one where its code,
//! tests left out (`tests.rs` and `tests/` too), has a path to it: `crate::other::…`, or `crate::Thing` where the root re-exports `Thing` from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, UseTree};

/// Which module imports which.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_module_imports_itself_in_a_circle() {
    let mut found = Vec::new();
    let members = super::root();
    for member in fs::read_dir(&members).unwrap() {
        let source = member.unwrap().path().join("src");
        for root in ["lib.rs", "main.rs"] {
            if source.join(root).is_file() {
                let circles = circles(&imports(&source, root));
                let name = source.strip_prefix(&members).unwrap().join(root);
                found.extend(
                    circles.into_iter().map(|circle| format!("{}: {}", name.display(), circle.join(" → "))),
                );
            }
        }
    }
    assert!(found.is_empty(), "modules that import themselves in a circle:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_also_through_a_re_export_a_macro_and_super() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("lib.rs", "mod a; pub use a::A; mod b; mod c; mod d; pub use d::D;");
    write("a.rs", "use super::b; struct A;");
    write("b.rs", "#[macro_export] macro_rules! of_b { () => { $crate::c::C } }");
    write("c/inner.rs", "use super::super::A;");
    write("c.rs", "mod inner; #[cfg(test)] mod tests { use crate::D; }");
    write("d.rs", "//! [`crate::D`]\nuse crate::{c, of_b};");
    assert_eq!(circles(&imports(dir.path(), "lib.rs")), [["a", "b", "c", "a"]]);
}

/// Reads what the modules of a crate import. Other programs of the crate, in `src/bin`, have no modules.
fn imports(source: &Path, root: &str) -> Imports {
    let root_file = syn::parse_file(&fs::read_to_string(source.join(root)).unwrap()).unwrap();
    let modules: BTreeSet<String> = root_file
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
            _ => None,
        })
        .collect();
    let files = super::files(source, &["rs"]);
    let parsed: Vec<_> = files
        .iter()
        .filter_map(|file| {
            let relative = file.strip_prefix(source).unwrap().with_extension("");
            let path: Vec<_> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            let code = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
            let is_test = path.iter().any(|part| part == "tests");
            (modules.contains(&path[0]) && !is_test).then(|| (path, without_tests(code.items)))
        })
        .collect();

    // What the root offers under its own name, and which module it is from.
    let mut names: BTreeMap<String, String> =
        modules.iter().map(|name| (name.clone(), name.clone())).collect();
    for item in &root_file.items {
        if let Item::Use(import) = item {
            re_exported(&import.tree, None, &modules, &mut names);
        }
    }
    for (path, items) in &parsed {
        for item in items {
            if let Item::Macro(item) = item
                && let Some(name) = &item.ident
                && item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"))
            {
                names.insert(name.to_string(), path[0].clone());
            }
        }
    }

    let mut imports = Imports::new();
    for (path, items) in &parsed {
        let mut used = BTreeSet::new();
        for item in items {
            named_from_root(quote::quote!(#item), path.len(), &mut used);
        }
        let of = imports.entry(path[0].clone()).or_default();
        of.extend(used.iter().filter_map(|name| names.get(name)).filter(|name| **name != path[0]).cloned());
    }
    imports
}

/// Leaves out what only tests see.
fn without_tests(items: Vec<Item>) -> Vec<Item> {
    let test = |item: &Item| {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return false,
        };
        attributes.iter().any(|attribute| {
            attribute.path().is_ident("cfg") && quote::quote!(#attribute).to_string().contains("(test)")
        })
    };
    items.into_iter().filter(|item| !test(item)).collect()
}

/// Notes which names of the root a `use` of one of its modules makes.
fn re_exported(
    tree: &UseTree,
    from: Option<&str>,
    modules: &BTreeSet<String>,
    names: &mut BTreeMap<String, String>,
) {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            match from {
                Some(from) => re_exported(&path.tree, Some(from), modules, names),
                None if first == "crate" || first == "self" => re_exported(&path.tree, None, modules, names),
                None if modules.contains(&first) => re_exported(&path.tree, Some(&first), modules, names),
                None => {}
            }
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| re_exported(tree, from, modules, names));
        }
        UseTree::Name(name) => {
            from.map(|from| names.insert(name.ident.to_string(), from.to_owned()));
        }
        UseTree::Rename(name) => {
            from.map(|from| names.insert(name.rename.to_string(), from.to_owned()));
        }
        UseTree::Glob(_) => {}
    }
}

/// Notes the first name of every path that starts at the root of the crate, also within macros. `depth` is how many
/// `super` lead from here to the root.
fn named_from_root(tokens: TokenStream, depth: usize, used: &mut BTreeSet<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if let TokenTree::Group(group) = &tokens[at] {
            named_from_root(group.stream(), depth, used);
        }
        let mut ups = 0;
        let mut next = at;
        while is(&tokens, next, "super") && colons(&tokens, next + 1) {
            ups += 1;
            next += 3;
        }
        let from_crate = is(&tokens, at, "crate") && colons(&tokens, at + 1);
        if from_crate {
            next = at + 3;
        }
        if from_crate || (ups > 0 && ups == depth) {
            match tokens.get(next) {
                Some(TokenTree::Ident(name)) => {
                    used.insert(name.to_string());
                }
                Some(TokenTree::Group(group)) => used.extend(first_names(group.stream())),
                _ => {}
            }
        }
        at = next.max(at + 1);
    }
}

/// The first name of each part of `{a::b, c}`.
fn first_names(group: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut first = true;
    for token in group {
        match token {
            TokenTree::Ident(name) if first => {
                names.push(name.to_string());
                first = false;
            }
            TokenTree::Punct(comma) if comma.as_char() == ',' => first = true,
            _ => {}
        }
    }
    names
}

fn is(tokens: &[TokenTree], at: usize, word: &str) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Ident(ident)) if ident == word)
}

fn colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// One shortest circle through each module that is on one, each circle once.
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in imports.keys() {
        let mut paths = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        let circle = loop {
            let mut longer = Vec::new();
            let mut closed = None;
            for path in &paths {
                for next in imports.get(path.last().unwrap()).into_iter().flatten() {
                    if next == start {
                        closed.get_or_insert_with(|| [path.clone(), vec![start.clone()]].concat());
                    } else if seen.insert(next.clone()) {
                        longer.push([path.clone(), vec![next.clone()]].concat());
                    }
                }
            }
            if closed.is_some() || longer.is_empty() {
                break closed;
            }
            paths = longer;
        };
        let members = |circle: &Vec<String>| circle.iter().cloned().collect::<BTreeSet<_>>();
        if let Some(circle) = circle
            && !found.iter().any(|other| members(other) == members(&circle))
        {
            found.push(circle);
        }
    }
    found
}
