"""What CloudFormation would make of template.yaml: SAM's own transform, then parameters and conditions put in."""

import copy
import functools
import json
import os
import pathlib
import re

os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")

from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
PSEUDO = {
    "AWS::AccountId": "111122223333",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "sharing",
    "AWS::URLSuffix": "amazonaws.com",
}
NOTHING = object()

# What shares a table, and every option at once.
LEAST = {
    "TableBuckets": "arn:aws:s3:::lake,arn:aws:s3:::pond",
    "TableObjects": "arn:aws:s3:::lake/tables/*,arn:aws:s3:::pond/*",
}
MOST = LEAST | {
    "TablePrefixes": "*_delta_log/*,tables/open/*",
    "TableKeys": "arn:aws:kms:eu-central-1:111122223333:key/0b1c",
    "OtherSignerRoles": "arn:aws:iam::444455556666:role/signer",
    "DomainName": "sharing.example.com",
    "BasePath": "consumer",
    "UrlTtl": "900",
    "PermissionsBoundary": "arn:aws:iam::111122223333:policy/boundary",
    "Canary": "true",
    "AlarmTopicArn": "arn:aws:sns:eu-central-1:111122223333:alarms",
    "AccessLogs": "true",
    "Waf": "true",
    "FunctionUrl": "true",
    "MaxConcurrency": "100",
    "Limits": "log_depth=1000, answers=10",
    "Gzip": "off",
    "Pages": "off",
    "CorsOrigins": "https://app.example.com,http://localhost:3000",
    "ServeTable": "restored",
}


class NoManagedPolicies:
    """The template names none, so SAM need not ask IAM for their ARNs."""

    def load(self):
        return {}


def parse(text):
    return yaml_parse(text)


def transformed(source=None, parameters=None, code="s3://bucket/function.zip"):
    """The template after SAM's transform, which knows the parameters, as CloudFormation gets to see it."""
    return json.loads(_transformed(source or (ROOT / "template.yaml").read_text(), tuple((parameters or {}).items()), code))


@functools.cache
def _transformed(source, parameters, code):
    template = parse(source)
    template["Resources"]["Function"]["Properties"]["CodeUri"] = code
    return json.dumps(transform(template, dict(parameters), NoManagedPolicies()))


class Stack:
    """The resources and outputs that the template yields for some parameters.

    What only AWS can know stays as `{"Ref": …}`, `{"Fn::GetAtt": …}` or, within text, as `${…}`.
    """

    def __init__(self, parameters, template=None):
        self.template = copy.deepcopy(template or transformed(parameters=parameters))
        declared = self.template["Parameters"]
        unknown = set(parameters) - set(declared)
        assert not unknown, f"the template has no parameters {unknown}"
        self.values = {}
        for name, about in declared.items():
            value = str(parameters[name] if name in parameters else about["Default"])
            each = value.split(",") if about["Type"] == "CommaDelimitedList" else [value]
            for one in each:
                assert re.search(about.get("AllowedPattern", ""), one), f"{name}: {one!r} is not allowed"
                assert value in map(str, about.get("AllowedValues", [value])), f"{name}: {value!r} is not allowed"
            assert len(value) <= about.get("MaxLength", len(value)), f"{name}: {value!r} is not allowed, because it is too long"
            if about["Type"] == "Number":
                number = float(value)
                assert about.get("MinValue", number) <= number <= about.get("MaxValue", number), f"{name}: {value} is not allowed"
            self.values[name] = each if about["Type"] == "CommaDelimitedList" else value
        for rule in self.template.get("Rules", {}).values():
            if self._holds(rule.get("RuleCondition", {"Fn::Equals": ["", ""]})):
                for assertion in rule["Assertions"]:
                    assert self._holds(assertion["Assert"]), assertion["AssertDescription"]
        self.resources = self._kept(self.template["Resources"])
        self.outputs = {name: output["Value"] for name, output in self._kept(self.template["Outputs"]).items()}

    def of_type(self, kind):
        return {name: about["Properties"] for name, about in self.resources.items() if about["Type"] == kind}

    def one(self, kind):
        [properties] = self.of_type(kind).values()
        return properties

    def _kept(self, section):
        return {
            name: self._resolve({key: value for key, value in about.items() if key != "Condition"})
            for name, about in section.items()
            if "Condition" not in about or self._holds({"Condition": about["Condition"]})
        }

    def _holds(self, condition):
        [(kind, of)] = condition.items()
        match kind:
            case "Condition":
                return self._holds(self.template["Conditions"][of])
            case "Fn::Equals":
                return str(self._resolve(of[0])) == str(self._resolve(of[1]))
            case "Fn::Not":
                return not self._holds(of[0])
            case "Fn::And":
                return all(map(self._holds, of))
            case "Fn::Or":
                return any(map(self._holds, of))
        raise AssertionError(f"a condition of an unknown kind: {kind}")

    def _resolve(self, node):
        if isinstance(node, list):
            return [value for value in map(self._resolve, node) if value is not NOTHING]
        if not isinstance(node, dict):
            return node
        match node:
            case {"Ref": "AWS::NoValue"}:
                return NOTHING
            case {"Ref": name} if name in PSEUDO or name in self.values:
                return PSEUDO.get(name) or self.values[name]
            case {"Ref": name}:
                self._must_exist(name)
                return node
            case {"Fn::GetAtt": [name, _]}:
                self._must_exist(name)
                return node
            case {"Fn::If": [condition, yes, no]}:
                return self._resolve(yes if self._holds({"Condition": condition}) else no)
            case {"Fn::Join": [between, parts]}:
                return between.join(self._resolve(parts))
            case {"Fn::Split": [between, text]}:
                return self._resolve(text).split(between)
            case {"Fn::Sub": [text, names]}:
                return self._substitute(text, {name: self._resolve(value) for name, value in names.items()})
            case {"Fn::Sub": text}:
                return self._substitute(text, {})
        return {key: value for key, value in ((key, self._resolve(value)) for key, value in node.items())
                if value is not NOTHING}

    def _substitute(self, text, names):
        known = {**PSEUDO, **self.values, **names}

        def one(match):
            value = known.get(match[1], match[0])
            if value == match[0]:
                self._must_exist(match[1].split(".")[0])
            return value if isinstance(value, str) else "${%s}" % value["Ref"]

        return re.sub(r"\$\{([^!}]+)\}", one, text)

    def _must_exist(self, name):
        """A reference to a resource whose own condition does not hold fails a deployment."""
        about = self.template["Resources"].get(name)
        assert about, f"nothing is called {name}"
        assert "Condition" not in about or self._holds({"Condition": about["Condition"]}), f"{name} is not made"
