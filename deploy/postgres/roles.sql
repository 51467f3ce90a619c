-- Once, as a superuser of the server:
--     psql -v owner_password=… -v service_password=… -f roles.sql
-- Then `pacs-cbir db upgrade` as pacs_cbir_owner makes the schema, and the services log in as pacs_cbir, who cannot
-- change it.
\set ON_ERROR_STOP on
CREATE ROLE pacs_cbir_service NOLOGIN;
CREATE ROLE pacs_cbir_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE pacs_cbir LOGIN PASSWORD :'service_password' IN ROLE pacs_cbir_service;
CREATE DATABASE pacs_cbir OWNER pacs_cbir_owner;
REVOKE CONNECT, TEMPORARY ON DATABASE pacs_cbir FROM PUBLIC;
GRANT CONNECT ON DATABASE pacs_cbir TO pacs_cbir_service;
-- A statement that failed is not logged with the names and IDs in it.
ALTER SYSTEM SET log_min_error_statement = panic;
ALTER SYSTEM SET log_error_verbosity = terse;
ALTER SYSTEM SET log_min_messages = log;
SELECT pg_reload_conf();
