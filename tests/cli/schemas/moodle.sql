-- Moodle: no foreign key, words run together (userid, lastip): the facts of its install.xml.
CREATE TABLE mdl_user (
  id bigserial PRIMARY KEY, auth varchar(20) NOT NULL DEFAULT 'manual', confirmed smallint NOT NULL DEFAULT 0,
  deleted smallint NOT NULL DEFAULT 0, mnethostid bigint NOT NULL DEFAULT 0,
  username varchar(100) NOT NULL DEFAULT '', password varchar(255) NOT NULL DEFAULT '',
  idnumber varchar(255) NOT NULL DEFAULT '', firstname varchar(100) NOT NULL DEFAULT '',
  lastname varchar(100) NOT NULL DEFAULT '', email varchar(100) NOT NULL DEFAULT '',
  phone1 varchar(20) NOT NULL DEFAULT '', institution varchar(255) NOT NULL DEFAULT '',
  department varchar(255) NOT NULL DEFAULT '', address varchar(255) NOT NULL DEFAULT '',
  city varchar(120) NOT NULL DEFAULT '', country varchar(2) NOT NULL DEFAULT '',
  lang varchar(30) NOT NULL DEFAULT 'en', timezone varchar(100) NOT NULL DEFAULT '99',
  firstaccess bigint NOT NULL DEFAULT 0, lastip varchar(45) NOT NULL DEFAULT '',
  secret varchar(15) NOT NULL DEFAULT '', picture bigint NOT NULL DEFAULT 0, description text,
  timecreated bigint NOT NULL DEFAULT 0, UNIQUE (mnethostid, username));
CREATE TABLE mdl_user_info_data (
  id bigserial PRIMARY KEY, userid bigint NOT NULL DEFAULT 0, fieldid bigint NOT NULL DEFAULT 0,
  data text NOT NULL, dataformat smallint NOT NULL DEFAULT 0);
CREATE TABLE mdl_user_preferences (
  id bigserial PRIMARY KEY, userid bigint NOT NULL DEFAULT 0, name varchar(255) NOT NULL DEFAULT '',
  value varchar(1333) NOT NULL DEFAULT '');
CREATE TABLE mdl_sessions (
  id bigserial PRIMARY KEY, state bigint NOT NULL DEFAULT 0, sid varchar(128) NOT NULL DEFAULT '',
  userid bigint NOT NULL, sessdata text, firstip varchar(45), lastip varchar(45));
CREATE TABLE mdl_logstore_standard_log (
  id bigserial PRIMARY KEY, eventname varchar(255) NOT NULL DEFAULT '', userid bigint NOT NULL,
  relateduserid bigint, ip varchar(45), other text, timecreated bigint NOT NULL);
CREATE TABLE mdl_forum_posts (
  id bigserial PRIMARY KEY, discussion bigint NOT NULL DEFAULT 0, userid bigint NOT NULL DEFAULT 0,
  subject varchar(255) NOT NULL DEFAULT '', message text NOT NULL);
CREATE TABLE mdl_course (
  id bigserial PRIMARY KEY, fullname varchar(254) NOT NULL DEFAULT '',
  shortname varchar(255) NOT NULL DEFAULT '', lang varchar(30) NOT NULL DEFAULT '');
