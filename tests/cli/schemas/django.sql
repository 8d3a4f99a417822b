-- Django's auth, admin and sessions, django-allauth, and REST framework's tokens: the facts of their migrations.
CREATE TABLE django_content_type (id serial PRIMARY KEY, app_label varchar(100) NOT NULL, model varchar(100) NOT NULL);
CREATE TABLE auth_group (id serial PRIMARY KEY, name varchar(150) NOT NULL UNIQUE);
CREATE TABLE auth_permission (
  id serial PRIMARY KEY, name varchar(255) NOT NULL,
  content_type_id int NOT NULL REFERENCES django_content_type DEFERRABLE INITIALLY DEFERRED, codename varchar(100) NOT NULL);
CREATE TABLE auth_user (
  id serial PRIMARY KEY, password varchar(128) NOT NULL, last_login timestamptz, is_superuser boolean NOT NULL,
  username varchar(150) NOT NULL UNIQUE, first_name varchar(150) NOT NULL, last_name varchar(150) NOT NULL,
  email varchar(254) NOT NULL, is_staff boolean NOT NULL, is_active boolean NOT NULL, date_joined timestamptz NOT NULL);
CREATE TABLE auth_user_groups (
  id bigserial PRIMARY KEY, user_id int NOT NULL REFERENCES auth_user DEFERRABLE INITIALLY DEFERRED,
  group_id int NOT NULL REFERENCES auth_group DEFERRABLE INITIALLY DEFERRED, UNIQUE (user_id, group_id));
CREATE TABLE django_admin_log (
  id serial PRIMARY KEY, action_time timestamptz NOT NULL, object_id text, object_repr varchar(200) NOT NULL,
  action_flag smallint NOT NULL CHECK (action_flag >= 0), change_message text NOT NULL,
  content_type_id int REFERENCES django_content_type DEFERRABLE INITIALLY DEFERRED,
  user_id int NOT NULL REFERENCES auth_user DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text NOT NULL, expire_date timestamptz NOT NULL);
CREATE TABLE account_emailaddress (
  id serial PRIMARY KEY, email varchar(254) NOT NULL, verified boolean NOT NULL, "primary" boolean NOT NULL,
  user_id int NOT NULL REFERENCES auth_user DEFERRABLE INITIALLY DEFERRED, UNIQUE (user_id, email));
CREATE TABLE socialaccount_socialaccount (
  id serial PRIMARY KEY, provider varchar(200) NOT NULL, uid varchar(191) NOT NULL, last_login timestamptz NOT NULL,
  date_joined timestamptz NOT NULL, extra_data jsonb NOT NULL,
  user_id int NOT NULL REFERENCES auth_user DEFERRABLE INITIALLY DEFERRED, UNIQUE (provider, uid));
CREATE TABLE authtoken_token (
  key varchar(40) PRIMARY KEY, created timestamptz NOT NULL,
  user_id int NOT NULL UNIQUE REFERENCES auth_user DEFERRABLE INITIALLY DEFERRED);
