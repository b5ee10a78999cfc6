//! The attributes that make a function an operator.
//!
//! Each leaves the function as it is, brings the contract's types into scope around it, and exports it. One
//! module holds one operator; a component may hold several modules.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Ident, ItemFn, Lit, MetaNameValue, Token};

/// `fn(DataModel) -> Result<DataModel, Error>`: one item into another.
#[proc_macro_attribute]
pub fn map_operator(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Contract::Current, "map", options, function)
}

/// `fn(DataModel) -> Result<bool, Error>`: whether an item goes on.
#[proc_macro_attribute]
pub fn filter_operator(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Contract::Current, "filter", options, function)
}

/// `fn(HybridLogicalClock, DataModel) -> Result<bool, Error>`: which arm an item takes.
#[proc_macro_attribute]
pub fn branch_operator(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Contract::Current, "branch", options, function)
}

/// `fn(DataModel, Vec<DataModel>) -> Result<DataModel, Error>`: items added to what was staged.
#[proc_macro_attribute]
pub fn accumulate_operator(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Contract::Current, "accumulate", options, function)
}

/// `fn(DataModel, HybridLogicalClock) -> Result<HybridLogicalClock, Error>`: an item's later time.
#[proc_macro_attribute]
pub fn delay_operator(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Contract::Current, "delay", options, function)
}

/// The same attributes for the preview contract, whose operators cannot answer with an error; `tinykube_wasm_sdk` has
/// them under their own names.
macro_rules! preview {
    ($($name:ident $kind:literal $signature:literal;)*) => {$(
        #[doc = concat!("`", $signature, "`: see the attribute without `preview_`.")]
        #[proc_macro_attribute]
        pub fn $name(options: TokenStream, function: TokenStream) -> TokenStream {
            expand(Contract::Preview, $kind, options, function)
        }
    )*};
}

preview! {
    preview_map_operator "map" "fn(DataModel) -> DataModel";
    preview_filter_operator "filter" "fn(DataModel) -> bool";
    preview_branch_operator "branch" "fn(HybridLogicalClock, DataModel) -> bool";
    preview_accumulate_operator "accumulate" "fn(DataModel, Vec<DataModel>) -> DataModel";
    preview_delay_operator "delay" "fn(DataModel, HybridLogicalClock) -> HybridLogicalClock";
}

/// Which generation of the contract an operator is for.
#[derive(Clone, Copy, PartialEq)]
enum Contract {
    Current,
    Preview,
}

fn expand(contract: Contract, kind: &str, options: TokenStream, function: TokenStream) -> TokenStream {
    let expanded = syn::parse::<ItemFn>(function).and_then(|function| {
        let init = init(options)?;
        Ok(operator(contract, kind, &init, &function))
    });
    expanded.unwrap_or_else(Error::into_compile_error).into()
}

/// The function named by `init = "…"`, if there is one.
fn init(options: TokenStream) -> Result<Option<Ident>, Error> {
    let mut init = None;
    for option in Punctuated::<MetaNameValue, Token![,]>::parse_terminated.parse(options)? {
        let Expr::Lit(ExprLit { lit: Lit::Str(value), .. }) = &option.value else {
            return Err(Error::new_spanned(&option.value, "a function's name is written as a string"));
        };
        if !option.path.is_ident("init") {
            let message = "the only option is `init = \"function\"`; do the work of decode, encode and destroy in \
                           the operator itself";
            return Err(Error::new_spanned(&option.path, message));
        }
        init = Some(value.parse::<Ident>()?);
    }
    Ok(init)
}

fn operator(contract: Contract, kind: &str, init: &Option<Ident>, function: &ItemFn) -> Tokens {
    let name = &function.sig.ident;
    let kind = format_ident!("{kind}");
    let arguments: Vec<Ident> =
        (0..function.sig.inputs.len()).map(|n| format_ident!("argument_{n}")).collect();
    let types = match kind.to_string().as_str() {
        "branch" => quote!(argument_0: HybridLogicalClock, argument_1: DataModel),
        "accumulate" => quote!(argument_0: DataModel, argument_1: ::std::vec::Vec<DataModel>),
        "delay" => quote!(argument_0: DataModel, argument_1: HybridLogicalClock),
        _ => quote!(argument_0: DataModel),
    };
    let result = match kind.to_string().as_str() {
        "filter" | "branch" => quote!(bool),
        "delay" => quote!(HybridLogicalClock),
        _ => quote!(DataModel),
    };
    let (sdk, result) = match contract {
        Contract::Current => (format_ident!("wasm_graph_sdk"), quote!(::std::result::Result<#result, Error>)),
        Contract::Preview => (format_ident!("tinykube_wasm_sdk"), result),
    };
    let init = match init {
        Some(init) => quote!(#init(configuration)),
        None => quote!({
            let _ = configuration;
            true
        }),
    };
    quote! {
        #[allow(unused_imports)]
        use ::#sdk::prelude::*;

        #function

        #[doc(hidden)]
        const _: () = {
            struct Operator;

            impl ::#sdk::export::#kind::Guest for Operator {
                fn process(#types) -> #result {
                    #name(#(#arguments),*)
                }

                fn init(configuration: ModuleConfiguration) -> bool {
                    #init
                }
            }

            ::#sdk::export::#kind::export!(Operator with_types_in ::#sdk::export::#kind);
        };
    }
}
