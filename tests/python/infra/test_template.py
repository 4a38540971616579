"""The template: streamed on every path, no permission beyond reading, the same words in every error."""

import json
import re

import pytest
from cloudformation import LEAST, MOST, ROOT, Stack, parse, transformed

STREAMED = "/response-streaming-invocations"
# The statuses of src/error.rs.
STATUS = {
    "MALFORMED_REQUEST": "400",
    "PERMISSION_DENIED": "403",
    "RESOURCE_DOES_NOT_EXIST": "404",
    "RESOURCE_LIMIT_EXCEEDED": "400",
    "REQUEST_LIMIT_EXCEEDED": "429",
    "INTERNAL_ERROR": "500",
    "TEMPORARILY_UNAVAILABLE": "503",
}


@pytest.fixture(scope="module", params=["least", "most"])
def stack(request):
    return Stack({"least": LEAST, "most": MOST}[request.param])


@pytest.fixture(scope="module")
def least():
    return Stack(LEAST)


@pytest.fixture(scope="module")
def most():
    return Stack(MOST)


def integrations(template):
    body = template["Resources"]["Api"]["Properties"]["Body"]
    return {
        (path, method): operation["x-amazon-apigateway-integration"]
        for path, operations in body["paths"].items()
        for method, operation in operations.items()
    }


def buffered(template):
    """The paths whose answers API Gateway would hold back until they are whole."""
    return {
        path
        for (path, _), integration in integrations(template).items()
        if integration.get("responseTransferMode") != "STREAM"
        or not integration["uri"]["Fn::Sub"][0].endswith(STREAMED)
    }


def statements(document):
    return {statement.get("Sid"): statement for statement in document["Statement"]}


def actions(document):
    listed = [statement["Action"] for statement in document["Statement"]]
    return {action for each in listed for action in ([each] if isinstance(each, str) else each)}


def test_every_path_is_streamed():
    template = transformed()
    assert set(integrations(template)) == {
        ("/", "x-amazon-apigateway-any-method"), ("/{proxy+}", "x-amazon-apigateway-any-method"),
    }
    assert buffered(template) == set()
    for integration in integrations(template).values():
        assert integration["type"] == "aws_proxy"
        uri, names = integration["uri"]["Fn::Sub"]
        assert ":lambda:path/2021-11-15/functions/${Alias}/" in uri and names == {"Alias": {"Ref": "FunctionAliaslive"}}
        assert integration["timeoutInMillis"] == 185_000


@pytest.mark.parametrize("right, wrong", [("responseTransferMode: STREAM", "responseTransferMode: BUFFERED"), (STREAMED, "/invocations")])
def test_the_check_of_streaming_sees_what_buffers(right, wrong):
    source = (ROOT / "template.yaml").read_text()
    assert buffered(transformed(source.replace(right, wrong))) == {"/", "/{proxy+}"}


def test_sam_does_not_ask_whether_the_api_may_be_without_authentication():
    # It asks for events of a function, and for function URLs that are written as part of one.
    function = parse((ROOT / "template.yaml").read_text())["Resources"]["Function"]["Properties"]
    assert "Events" not in function and "FunctionUrlConfig" not in function


def test_the_function_ends_before_api_gateway_gives_up(least):
    timeout = least.one("AWS::Lambda::Function")["Timeout"]
    for integration in integrations(least.template).values():
        assert timeout * 1000 < integration["timeoutInMillis"] <= 900_000


def test_there_is_one_regional_stage_with_throttling_and_no_execution_log(stack):
    [stage] = stack.of_type("AWS::ApiGateway::Stage").values()
    assert "StageName" not in stack.one("AWS::ApiGateway::Deployment"), "a deployment makes a stage of its own"
    assert stage["StageName"] == "delta-sharing"
    [settings] = stage["MethodSettings"]
    assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")
    assert float(settings["ThrottlingRateLimit"]) > 0 and float(settings["ThrottlingBurstLimit"]) > 0
    assert settings["LoggingLevel"] == "OFF" and settings["DataTraceEnabled"] is False
    assert stack.one("AWS::ApiGateway::RestApi")["EndpointConfiguration"]["Types"] == ["REGIONAL"]


def test_errors_of_api_gateway_have_the_body_of_every_other_error(least):
    responses = least.one("AWS::ApiGateway::RestApi")["Body"]["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX", "THROTTLED", "INTEGRATION_TIMEOUT", "WAF_FILTERED"} <= set(responses)
    for name, response in responses.items():
        text = response["responseTemplates"]["application/json"]
        body = json.loads(text)
        assert list(body) == ["errorCode", "message", "error_code"], name
        assert body["errorCode"] == body["error_code"]
        assert "$" not in text, "a gateway response quotes the request"
        if not name.startswith("DEFAULT_"):
            assert response["statusCode"] == STATUS[body["errorCode"]], name
        headers = response["responseParameters"]
        assert headers["gatewayresponse.header.x-request-id"] == "context.requestId"
        assert ("gatewayresponse.header.Retry-After" in headers) == (response.get("statusCode") in ("429", "503")), name


def headers_of_gateway_responses(stack):
    responses = stack.one("AWS::ApiGateway::RestApi")["Body"]["x-amazon-apigateway-gateway-responses"].values()
    return [{name.lower().removeprefix("gatewayresponse.header."): value for name, value in response["responseParameters"].items()}
            for response in responses]


def test_without_origins_nothing_is_allowed(least):
    assert not any(name.startswith("access-control-") for headers in headers_of_gateway_responses(least) for name in headers)
    assert "Variables" not in least.one("AWS::ApiGateway::Stage")
    assert "Cors" not in Stack(LEAST | {"FunctionUrl": "true"}).one("AWS::Lambda::Url")


@pytest.mark.parametrize("origins, variable", [
    ("https://app.example.com,http://localhost:3000", "https://app.example.com,http://localhost:3000"), ("*", "any"),
])
def test_origins_reach_the_function_by_the_stage(origins, variable):
    stack = Stack(LEAST | {"CorsOrigins": origins, "FunctionUrl": "true", "Waf": "true"})
    assert stack.one("AWS::ApiGateway::Stage")["Variables"] == {"corsOrigins": variable}
    # What API Gateway allows in the value of a stage variable.
    assert re.fullmatch(r"[A-Za-z0-9\-._~:/?#&=,]+", variable)
    for headers in headers_of_gateway_responses(stack):
        assert headers["access-control-allow-origin"] == "'*'"
        assert {"x-request-id", "retry-after"} == set(headers["access-control-expose-headers"].strip("'").split(", "))
    for rule in stack.one("AWS::WAFv2::WebACL")["Rules"][:2]:
        headers = rule["Action"]["Block"]["CustomResponse"]["ResponseHeaders"]
        assert {"Name": "Access-Control-Allow-Origin", "Value": "*"} in headers
    assert stack.one("AWS::Lambda::Url")["Cors"]["AllowOrigins"] == origins.split(",")


def test_a_function_url_allows_the_headers_that_the_server_allows(most):
    source = (ROOT / "src/http/cors.rs").read_text()
    texts = re.findall(r"HeaderValue = HeaderValue::from_static\(\s*\"((?:[^\"]|\\\n)+)\"", source)
    methods, sent, received = ({name.strip(" \\\n") for name in text.split(",")} for text in texts[:3])
    cors = most.one("AWS::Lambda::Url")["Cors"]
    assert set(cors["AllowMethods"]) == methods
    # Ranges and encodings are those of files and of compressed answers, which function URLs do not have.
    assert set(cors["AllowHeaders"]) == sent - {"range"}
    assert set(cors["ExposeHeaders"]) == received - {"accept-ranges", "content-encoding", "content-range"}


@pytest.mark.parametrize("origins, right", [
    ("", True), ("*", True), ("https://app.example.com", True), ("https://a.example,http://localhost:3000", True),
    ("https://app.example.com/", False), ("https://app.example.com/path", False), ("app.example.com", False), ("https://a.example, https://b.example", False),
    ("https://a.example,*", False), ("null", False), ("https://A.example", False),
])
def test_only_origins_are_accepted(least, origins, right):
    assert bool(re.fullmatch(least.template["Parameters"]["CorsOrigins"]["AllowedPattern"], origins)) == right


def test_the_codes_and_statuses_are_those_of_the_server():
    source = (ROOT / "src/error.rs").read_text()
    names = dict(re.findall(r"Self::(\w+) => \"(\w+)\"", source))
    statuses = {}
    for group, status in re.findall(r"((?:\s*\|?\s*Self::\w+)+) => (\d{3}),", source):
        statuses |= {names[name]: status for name in re.findall(r"Self::(\w+)", group)}
    assert {code: statuses.get(code) for code in STATUS} == STATUS


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_the_function(architecture):
    stack = Stack(LEAST | {"Architecture": architecture})
    function = stack.one("AWS::Lambda::Function")
    assert function["Architectures"] == [architecture]
    assert (function["Runtime"], function["Handler"]) == ("provided.al2023", "bootstrap")
    assert "ReservedConcurrentExecutions" not in function
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert function["Environment"]["Variables"] == {
        "DELTASHARE_TABLE": {"Ref": "Table"},
        "DELTASHARE_SIGNER_ROLE_ARN": {"Fn::GetAtt": ["SignerRole", "Arn"]},
        "DELTASHARE_BASE_PATH": "",
        "DELTASHARE_GZIP": "on",
        "DELTASHARE_LIMITS": "",
        "DELTASHARE_PAGES": "on",
        "DELTASHARE_URL_TTL": "3600",
        "RUST_LOG": "warn,buoyant_kernel=off,deltashare=INFO,deltashare::audit=INFO,lambda=INFO",
    }
    metadata = stack.template["Resources"]["Function"]["Metadata"]
    assert (metadata["BuildMethod"], metadata["BuildProperties"]) == ("rust-cargolambda", {"Binary": "lambda"})


def test_the_table_survives(stack):
    assert stack.resources["Table"]["DeletionPolicy"] == "Retain"
    assert stack.resources["Table"]["UpdateReplacePolicy"] == "Retain"
    table = stack.one("AWS::DynamoDB::Table")
    assert table["DeletionProtectionEnabled"] is True
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["AttributeDefinitions"] == [
        {"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"},
    ]
    assert "TableName" not in table, "a named table could not be replaced"


def test_the_server_reads_records_deletes_activations_and_writes_its_key_and_what_is_used(stack):
    document = stack.one("AWS::IAM::Policy")["PolicyDocument"]
    assert actions(document) == {
        "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:PutItem",
        "dynamodb:DeleteItem", "dynamodb:UpdateItem", "sts:AssumeRole", "logs:CreateLogStream", "logs:PutLogEvents",
    }
    made = statements(document)["MakeTokenKey"]
    assert made["Action"] == "dynamodb:PutItem"
    assert made["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["SERVER"]}}
    used = statements(document)["UseActivationLinks"]
    assert used["Action"] == "dynamodb:DeleteItem" and used["Resource"] == made["Resource"]
    assert used["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["ACTIVATION#*"]}}
    counted = statements(document)["CountUsage"]
    assert counted["Action"] == "dynamodb:UpdateItem" and counted["Resource"] == statements(document)["ReadRecords"]["Resource"]
    assert counted["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["USAGE#*"]}}
    role = stack.of_type("AWS::IAM::Role")["ServerRole"]
    assert not role.get("Policies") and not role.get("ManagedPolicyArns")
    assert "*" not in [statement["Resource"] for statement in document["Statement"]]
    assert statements(document)["TakeOnSignerRole"]["Resource"] == {"Fn::GetAtt": ["SignerRole", "Arn"]}


def test_the_server_reads_its_table_or_the_one_named(least, most):
    document = least.one("AWS::IAM::Policy")["PolicyDocument"]
    assert statements(document)["ReadRecords"]["Resource"] == {"Fn::GetAtt": ["Table", "Arn"]}
    document = most.one("AWS::IAM::Policy")["PolicyDocument"]
    restored = "arn:aws:dynamodb:eu-central-1:111122223333:table/restored"
    assert statements(document)["ReadRecords"]["Resource"] == restored
    assert most.one("AWS::Lambda::Function")["Environment"]["Variables"]["DELTASHARE_TABLE"] == "restored"
    assert most.outputs["TableName"] == "restored"


def test_roles_in_other_accounts_are_named_one_by_one(least, most):
    assert "TakeOnOtherSignerRoles" not in statements(least.one("AWS::IAM::Policy")["PolicyDocument"])
    other = statements(most.one("AWS::IAM::Policy")["PolicyDocument"])["TakeOnOtherSignerRoles"]
    assert other["Resource"] == ["arn:aws:iam::444455556666:role/signer"]


def test_the_signer_reads_what_the_parameters_say(least, most):
    for stack in (least, most):
        role = stack.of_type("AWS::IAM::Role")["SignerRole"]
        assert role["MaxSessionDuration"] == 3600
        [trust] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"AWS": {"Fn::GetAtt": ["ServerRole", "Arn"]}}
        [policy] = role["Policies"]
        allowed = statements(policy["PolicyDocument"])
        assert allowed["ReadTables"]["Action"] == "s3:GetObject"
        assert allowed["ReadTables"]["Resource"] == ["arn:aws:s3:::lake/tables/*", "arn:aws:s3:::pond/*"]
        assert allowed["ListTables"]["Action"] == "s3:ListBucket"
        assert allowed["ListTables"]["Resource"] == ["arn:aws:s3:::lake", "arn:aws:s3:::pond"]
        listed = stack.values["TablePrefixes"]
        assert allowed["ListTables"]["Condition"] == {"StringLike": {"s3:prefix": listed}}
        assert listed == (["*_delta_log/*"] if stack is least else ["*_delta_log/*", "tables/open/*"])
    assert set(allowed) == {"ReadTables", "ListTables", "DecryptTables"}
    assert allowed["DecryptTables"]["Resource"] == ["arn:aws:kms:eu-central-1:111122223333:key/0b1c"]
    assert allowed["DecryptTables"]["Condition"] == {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}}
    [policy] = least.of_type("AWS::IAM::Role")["SignerRole"]["Policies"]
    assert set(statements(policy["PolicyDocument"])) == {"ReadTables", "ListTables"}


@pytest.mark.parametrize("name, value", [
    ("TableBuckets", "lake"),
    ("TableBuckets", "arn:aws:s3:::lake/tables"),
    ("TableBuckets", "*"),
    ("TableObjects", "arn:aws:s3:::lake"),
    ("TableObjects", "arn:aws:s3:::lake/tables"),
    ("TableObjects", "arn:aws:s3:::*"),
    ("TablePrefixes", "tables/open"),
    ("OtherSignerRoles", "arn:aws:iam::444455556666:role/*"),
    ("TableKeys", "arn:aws:kms:eu-central-1:111122223333:key/*"),
    ("BasePath", "/consumer/"),
    ("UrlTtl", "899"),
    ("UrlTtl", "3601"),
    ("PermissionsBoundary", "boundary"),
])
def test_parameters_that_would_allow_too_much_or_nothing_are_refused(name, value):
    with pytest.raises(AssertionError, match="is not allowed"):
        Stack(LEAST | {name: value})


def test_log_groups_have_a_retention(least, most):
    assert set(least.of_type("AWS::Logs::LogGroup")) == {"FunctionLogs"}
    assert set(most.of_type("AWS::Logs::LogGroup")) == {"FunctionLogs", "ApiLogs", "WafLogs"}
    for group in most.of_type("AWS::Logs::LogGroup").values():
        assert group["RetentionInDays"] == "90"


def test_the_access_log_is_json_without_headers(most):
    setting = most.one("AWS::ApiGateway::Stage")["AccessLogSetting"]
    line = json.loads(setting["Format"])
    assert all(value.startswith("$context.") for value in line.values())
    assert line["transferMode"] == "$context.integration.responseTransferMode"
    assert line["firstContent_ms"] == "$context.integration.timeToFirstContent"
    assert "authorization" not in setting["Format"].lower()


def test_endpoints():
    domain = {"DomainName": "sharing.example.com"}
    assert Stack(LEAST).outputs["Endpoint"] == "https://${Api}.execute-api.eu-central-1.amazonaws.com/delta-sharing/"
    assert Stack(LEAST | domain).outputs["Endpoint"] == "https://sharing.example.com/"
    both = Stack(LEAST | domain | {"BasePath": "consumer"})
    assert both.outputs["Endpoint"] == "https://sharing.example.com/consumer/"
    assert both.one("AWS::Lambda::Function")["Environment"]["Variables"]["DELTASHARE_BASE_PATH"] == "/consumer"


def test_a_domain_is_mapped_but_not_made(least, most):
    assert not least.of_type("AWS::ApiGateway::BasePathMapping")
    root = Stack(LEAST | {"DomainName": "sharing.example.com"})
    mapping = root.one("AWS::ApiGateway::BasePathMapping")
    assert mapping["DomainName"] == "sharing.example.com" and "BasePath" not in mapping
    mapping = most.one("AWS::ApiGateway::BasePathMapping")
    assert mapping["DomainName"] == "sharing.example.com" and mapping["BasePath"] == "consumer"
    assert mapping["Stage"]["Ref"] in most.of_type("AWS::ApiGateway::Stage")
    # What several stacks share belongs to none of them.
    assert not most.of_type("AWS::ApiGateway::DomainName") and not most.of_type("AWS::Route53::RecordSet")


def domain(**parameters):
    return Stack(parameters, parse((ROOT / "infra/domain.yaml").read_text()))


def test_the_template_of_the_domain_makes_it_with_a_certificate_and_an_address():
    zone = domain(DomainName="sharing.example.com", HostedZoneId="Z0123456789")
    assert zone.one("AWS::CertificateManager::Certificate")["ValidationMethod"] == "DNS"
    made = zone.one("AWS::ApiGateway::DomainName")
    assert (made["DomainName"], made["RegionalCertificateArn"]) == ("sharing.example.com", {"Ref": "Certificate"})
    assert made["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    assert zone.one("AWS::Route53::RecordSet")["Name"] == "sharing.example.com"
    arn = "arn:aws:acm:eu-central-1:111122223333:certificate/0b1c"
    elsewhere = domain(DomainName="sharing.example.com", CertificateArn=arn)
    assert elsewhere.one("AWS::ApiGateway::DomainName")["RegionalCertificateArn"] == arn
    assert set(elsewhere.resources) == {"Domain"} and set(elsewhere.outputs) == {"DomainName", "Target"}


def test_parameters_that_mean_nothing_together_are_refused():
    with pytest.raises(AssertionError, match="DomainName, which is empty"):
        Stack(LEAST | {"BasePath": "consumer"})
    with pytest.raises(AssertionError, match="only with a HostedZoneId"):
        domain(DomainName="sharing.example.com")


def test_a_stack_without_buckets_reads_none_and_one_without_objects_reads_all_of_its_buckets():
    assert "Policies" not in Stack({}).of_type("AWS::IAM::Role")["SignerRole"]
    [policy] = Stack({"TableBuckets": LEAST["TableBuckets"]}).of_type("AWS::IAM::Role")["SignerRole"]["Policies"]
    assert statements(policy["PolicyDocument"])["ReadTables"]["Resource"] == ["arn:aws:s3:::lake/*", "arn:aws:s3:::pond/*"]


def test_every_parameter_has_a_default():
    assert [name for name, about in Stack({}).template["Parameters"].items() if "Default" not in about] == []


def test_every_role_has_the_boundary(least, most):
    assert set(most.of_type("AWS::IAM::Role")) == {"ServerRole", "SignerRole", "RolloutRole"}
    for role in most.of_type("AWS::IAM::Role").values():
        assert role["PermissionsBoundary"] == MOST["PermissionsBoundary"]
    for role in least.of_type("AWS::IAM::Role").values():
        assert "PermissionsBoundary" not in role


def test_a_short_life_of_urls_sets_off_no_alarm(least, most):
    alarm = least.resources["ShortUrls"]["Properties"]
    assert alarm["Threshold"] == 1500 and least.one("AWS::Lambda::Function")["Timeout"] + 1500 < 1800
    alarm, function = most.resources["ShortUrls"]["Properties"], most.one("AWS::Lambda::Function")
    assert function["Environment"]["Variables"]["DELTASHARE_URL_TTL"] == "900"
    assert alarm["Threshold"] + function["Timeout"] < 900


def test_a_canary_watches_the_alarms_and_goes_back(least, most):
    assert not [kind for kind in {about["Type"] for about in least.resources.values()} if "CodeDeploy" in kind]
    group = most.one("AWS::CodeDeploy::DeploymentGroup")
    watched = {alarm["Name"]["Ref"] for alarm in group["AlarmConfiguration"]["Alarms"]}
    assert watched == {"FunctionFailures", "ServerErrors"} <= set(most.of_type("AWS::CloudWatch::Alarm"))
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert "Canary10Percent10Minutes" in json.dumps(group["DeploymentConfigName"])
    assert group["ServiceRoleArn"] == {"Fn::GetAtt": ["RolloutRole", "Arn"]}
    assert "CodeDeployLambdaAliasUpdate" in most.resources["FunctionAliaslive"]["UpdatePolicy"]
    assert "UpdatePolicy" not in least.resources["FunctionAliaslive"]


def version(stack):
    [(name, about)] = [(name, about) for name, about in stack.resources.items() if about["Type"] == "AWS::Lambda::Version"]
    # CloudFormation publishes another one where either differs.
    return name, about["Properties"]["Description"]


def published(stack):
    """What a version of the function holds."""
    return {name: value for name, value in stack.one("AWS::Lambda::Function").items() if name != "ReservedConcurrentExecutions"}


OTHERS = {
    "Architecture": "x86_64", "MemorySize": "2048", "LogLevel": "DEBUG", "LogRetentionDays": "1", "Dashboard": "false",
    "RateLimit": "1", "BurstLimit": "1", "WafRateLimit": "10",
}


@pytest.mark.parametrize("name", sorted(MOST | OTHERS))
def test_a_version_is_published_when_and_only_when_the_function_changes(name):
    # Not when it should: the alias keeps the old settings. When it should not: Lambda refuses to publish the same again.
    before = Stack(LEAST | {"DomainName": "sharing.example.com"})
    after = Stack(LEAST | {"DomainName": "sharing.example.com", **({name: (MOST | OTHERS)[name]} if name not in LEAST else {})})
    assert (version(before) != version(after)) == (published(before) != published(after)), name


def test_every_parameter_was_changed_to_see_what_is_published(least):
    assert set(least.template["Parameters"]) == set(MOST | OTHERS)


def test_a_version_is_published_for_other_code_and_old_ones_stay():
    before, after = Stack(LEAST), Stack(LEAST, transformed(parameters=LEAST, code="s3://bucket/other.zip"))
    assert version(before)[0] != version(after)[0]
    about = before.resources[version(before)[0]]
    assert about["DeletionPolicy"] == about["UpdateReplacePolicy"] == "Retain"


def longest(about):
    """How long the value of a parameter can be."""
    if "MaxLength" in about:
        return about["MaxLength"]
    return max(len(str(value)) for value in about.get("AllowedValues") or [about["MaxValue"]])


def test_descriptions_of_versions_are_short_enough(least):
    text = least.template["Resources"][version(least)[0]]["Properties"]["Description"]["Fn::Sub"]
    named = re.findall(r"\$\{(\w+)\}", text)
    fixed = len(re.sub(r"\$\{\w+\}", "", text))
    assert named and fixed + sum(longest(least.template["Parameters"][name]) for name in named) <= 256


def test_the_web_acl_guards_the_stage_and_logs_no_token(least, most):
    assert not least.of_type("AWS::WAFv2::WebACL")
    arn = most.one("AWS::WAFv2::WebACLAssociation")["ResourceArn"]
    stage = re.fullmatch(r"arn:aws:apigateway:eu-central-1::/restapis/\$\{Api\}/stages/\$\{(\w+)\}", arn)[1]
    assert stage in most.of_type("AWS::ApiGateway::Stage")
    acl = most.one("AWS::WAFv2::WebACL")
    assert len({rule["Priority"] for rule in acl["Rules"]}) == len(acl["Rules"])
    body = json.loads(acl["CustomResponseBodies"]["TooMany"]["Content"])
    assert body["errorCode"] == body["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert most.one("AWS::WAFv2::LoggingConfiguration")["RedactedFields"] == [{"SingleHeader": {"Name": "authorization"}}]
    assert all(rule["VisibilityConfig"]["SampledRequestsEnabled"] is False for rule in acl["Rules"])


def test_the_cheap_web_acl_limits_each_token_and_each_address_before_anything_else(most):
    rules = Stack(LEAST | {"Waf": "rates"}).one("AWS::WAFv2::WebACL")["Rules"]
    assert [rule["Name"] for rule in rules] == ["rate-by-token", "rate-by-address"]
    assert [rule["Name"] for rule in most.one("AWS::WAFv2::WebACL")["Rules"]][:2] == ["rate-by-token", "rate-by-address"]
    assert [rule["Statement"]["RateBasedStatement"]["AggregateKeyType"] for rule in rules] == ["CUSTOM_KEYS", "IP"]
    for rule in rules:
        assert rule["Statement"]["RateBasedStatement"]["Limit"] == "1500"
        response = rule["Action"]["Block"]["CustomResponse"]
        assert response["ResponseCode"] == 429 and [header["Name"] for header in response["ResponseHeaders"]] == ["Retry-After"]


def test_one_address_cannot_use_up_the_rate_of_all_where_there_is_a_web_acl(least):
    [settings] = least.one("AWS::ApiGateway::Stage")["MethodSettings"]
    # In five minutes, with room for the seconds that a web ACL takes to notice.
    assert float(least.values["WafRateLimit"]) <= 300 * float(settings["ThrottlingRateLimit"]) / 4


def test_copies_of_the_function_are_reserved_where_that_is_asked_for(least, most):
    # A reservation fails a deployment in an account that has none to spare.
    assert "ReservedConcurrentExecutions" not in least.one("AWS::Lambda::Function")
    assert most.one("AWS::Lambda::Function")["ReservedConcurrentExecutions"] == MOST["MaxConcurrency"]


@pytest.mark.parametrize("level,of_lambda", [("ERROR", "INFO"), ("WARN", "INFO"), ("DEBUG", "DEBUG")])
def test_events_of_requests_and_metrics_do_not_depend_on_the_log_level(level, of_lambda):
    function = Stack(LEAST | {"LogLevel": level}).one("AWS::Lambda::Function")
    assert function["LoggingConfig"]["ApplicationLogLevel"] == of_lambda
    assert "deltashare::audit=INFO" in function["Environment"]["Variables"]["RUST_LOG"]
    assert f"deltashare={level}" in function["Environment"]["Variables"]["RUST_LOG"]


def test_limits_reach_the_function(least, most):
    def limits(template):
        return template.one("AWS::Lambda::Function")["Environment"]["Variables"]["DELTASHARE_LIMITS"]

    assert (limits(least), limits(most)) == ("", MOST["Limits"])


def test_what_keeps_senders_apart_costs_nothing_while_nobody_reads(least):
    billed = {"AWS::WAFv2::WebACL", "AWS::ApiGateway::UsagePlan", "AWS::CloudFront::Distribution"}
    assert not billed & {about["Type"] for about in least.resources.values()}
    assert "ProvisionedConcurrencyConfig" not in json.dumps(least.resources)


def test_the_page_on_limits_has_the_defaults_of_the_stack(least):
    section = (ROOT / "docs/limits.md").read_text().split("## On AWS")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")][1:]
    assert {name for name, *_ in rows} >= {"RateLimit", "BurstLimit", "Waf", "WafRateLimit", "MaxConcurrency"}
    for name, default, _, reason, _ in rows:
        assert least.values[name] == default and reason, name


def test_the_function_url_streams_and_has_both_permissions(least, most):
    assert not least.of_type("AWS::Lambda::Url") and "FunctionUrl" not in least.outputs
    assert most.one("AWS::Lambda::Url")["InvokeMode"] == "RESPONSE_STREAM" and most.one("AWS::Lambda::Url")["Qualifier"] == "live"
    public = [each for each in most.of_type("AWS::Lambda::Permission").values() if each["Principal"] == "*"]
    assert {each["Action"] for each in public} == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    for each in public:
        assert each["FunctionName"] == {"Ref": "FunctionAliaslive"}
        assert each.get("FunctionUrlAuthType") == "NONE" or each.get("InvokedViaFunctionUrl") is True


def test_only_api_gateway_may_call_the_function_without_a_url(least):
    permission = least.one("AWS::Lambda::Permission")
    assert (permission["Action"], permission["Principal"]) == ("lambda:InvokeFunction", "apigateway.amazonaws.com")
    assert permission["FunctionName"] == {"Ref": "FunctionAliaslive"}, "API Gateway calls the alias"
    assert permission["SourceArn"] == "arn:aws:execute-api:eu-central-1:111122223333:${Api}/*"


def test_alarms_notify_the_topic(least, most):
    assert len(least.of_type("AWS::CloudWatch::Alarm")) == len(most.of_type("AWS::CloudWatch::Alarm")) == 9
    for alarm in least.of_type("AWS::CloudWatch::Alarm").values():
        assert "AlarmActions" not in alarm and alarm["AlarmDescription"]
    for alarm in most.of_type("AWS::CloudWatch::Alarm").values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [MOST["AlarmTopicArn"]]


def test_alarms_and_dashboard_use_the_metrics_of_the_function(most):
    widgets = json.loads(most.one("AWS::CloudWatch::Dashboard")["DashboardBody"])["widgets"]
    own = r'\{deltashare,FunctionName,Action\} FunctionName="\$\{Function\}" MetricName="(\w+)"'
    shown = set(re.findall(own, json.dumps(widgets).replace('\\"', '"')))
    assert shown == {"Latency", "Errors", "Gone", "Broken", "AuthFailures", "FilesSigned", "BytesGranted", "ShortestUrlLife"}
    asked = {alarm["MetricName"]: alarm["Dimensions"] for alarm in most.of_type("AWS::CloudWatch::Alarm").values()
             if alarm["Namespace"] == "deltashare"}
    this = [{"Name": "FunctionName", "Value": {"Ref": "Function"}}]
    assert asked == dict.fromkeys(("AuthFailures", "Broken", "ProviderFaults", "ShortestUrlLife"), this)
    squares = {(x, y) for widget in widgets
               for x in range(widget["x"], widget["x"] + widget["width"])
               for y in range(widget["y"], widget["y"] + widget["height"])}
    assert len(squares) == sum(widget["width"] * widget["height"] for widget in widgets), "widgets overlap"
    assert max(x for x, _ in squares) < 24


def test_alarms_and_dashboard_are_of_one_stack(most):
    names = ({"Ref": "Function"}, "sharing", "delta-sharing", "restored")
    for alarm in most.of_type("AWS::CloudWatch::Alarm").values():
        assert alarm["Dimensions"] and all(dimension["Value"] in names for dimension in alarm["Dimensions"])
    for widget in json.loads(most.one("AWS::CloudWatch::Dashboard")["DashboardBody"])["widgets"]:
        assert any(name in json.dumps(widget) for name in ('"sharing"', "${Function}", "restored", "${FunctionLogs}")), widget


def test_no_dashboard_where_it_is_not_wanted():
    assert not Stack(LEAST | {"Dashboard": "false"}).of_type("AWS::CloudWatch::Dashboard")


@pytest.mark.parametrize("option", sorted(set(MOST) - set(LEAST)))
def test_each_option_stands_alone(option):
    # A reference to what the option does not make would fail a deployment; so it does here.
    needed = {"BasePath": ["DomainName"]}.get(option, [])
    alone = Stack(LEAST | {each: MOST[each] for each in [option, *needed]})
    assert alone.outputs["Endpoint"] and "Function" in alone.resources


def test_outputs(least):
    assert set(least.outputs) == {"Endpoint", "TableName", "SignerRoleArn", "ServerRoleArn", "FunctionName", "FunctionVersion", "LogGroup"}
