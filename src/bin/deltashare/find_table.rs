//! A table by its name, and the catalog that it is in, in DynamoDB or in a share file.

use std::path::Path;

use deltashare::catalog::state::{CatalogState, TableState};
use deltashare::check::named_tables;

use super::admin::split_table;
use super::arguments::Common;
use super::aws::Aws;
use super::{Cause, Failure, next_step, share_file};

/// Finds SHARE.SCHEMA.TABLE in the share file, or in DynamoDB if there is no file. Fails with exit code 3 if it is not
/// there.
pub(crate) async fn find_table(
    name: &str,
    file: Option<&Path>,
    common: &Common,
) -> Result<(Aws, TableState), Failure> {
    if let Some(path) = file {
        return Ok((Aws::load().await?, in_file(path, name)?));
    }
    let aws = Aws::signed_in().await?;
    let (share, schema, table) = split_table(name)?;
    match aws.writer(common).table(share, schema, table).await {
        Ok(table) => Ok((aws, table)),
        Err(error) => Err(next_step::explain(error.into(), common, &aws.sdk).await),
    }
}

fn in_file(path: &Path, name: &str) -> Result<TableState, Failure> {
    let (file, _) = share_file::read(path).map_err(Failure::usage)?;
    let state = file.state(&CatalogState::default());
    let found = named_tables(&state).find(|(_, known, _)| known.eq_ignore_ascii_case(name));
    let missing = || Failure {
        code: 3,
        message: format!("there is no table '{name}' in {}", path.display()),
        cause: Cause::Said,
    };
    found.map(|(_, _, table)| table.clone()).ok_or_else(missing)
}

/// Everything in the share file, or in DynamoDB if there is no file. Records that cannot be read are left out.
pub(crate) async fn read_catalog(
    file: Option<&Path>,
    common: &Common,
    aws: &Aws,
) -> Result<CatalogState, Failure> {
    if let Some(path) = file {
        let (file, _) = share_file::read(path).map_err(Failure::usage)?;
        return Ok(file.state(&CatalogState::default()));
    }
    match aws.writer(common).read().await {
        Ok(contents) => Ok(contents.state),
        Err(error) => Err(next_step::explain(error.into(), common, &aws.sdk).await),
    }
}
